//! The parameters of the query history: data sources, status codes, a span of time and a page.

use jiff::{SignedDuration, Timestamp, civil::Date, civil::DateTime, tz::Offset};
use serde_json::{Map, Value};

/// The status codes that can be requested.
const STATUS_CODES: [&str; 6] = ["SCHEDULED", "QUEUED", "RUNNING", "SUCCESS", "FAILURE", "STOPPED"];

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The longest span of time.
const LONGEST: SignedDuration = SignedDuration::from_secs(90 * DAY);

/// The parameters, parsed and valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SimHistoryFilter {
    /// In lower case.
    pub(super) ds_ids: Vec<String>,
    /// In upper case; all when empty.
    pub(super) status_codes: Vec<String>,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    pub(super) offset: u64,
    pub(super) limit: u64,
}

/// A code of an error, and its description.
pub(super) type Refusal = (&'static str, String);

impl SimHistoryFilter {
    pub(super) fn read(parameters: &Map<String, Value>, now: Timestamp) -> Result<Self, Refusal> {
        let invalid = |problem: &str| ("PARAMETER_INVALID", problem.to_owned());
        let texts = |name: &str| {
            texts(parameters.get(name))
                .ok_or_else(|| invalid(&format!("{name} is not a text or a list of texts")))
        };
        let ds_ids: Vec<String> = texts("ds_ids")?.iter().map(|it| it.to_lowercase()).collect();
        if ds_ids.is_empty() {
            return Err(("PARAMETER_REQUIRED", "ds_ids is required".to_owned()));
        }
        let status_codes: Vec<String> = texts("status_codes")?.iter().map(|it| it.to_uppercase()).collect();
        if let Some(unknown) = status_codes.iter().find(|code| !STATUS_CODES.contains(&code.as_str())) {
            return Err(invalid(&format!("status_codes: {unknown:?} is not a status code")));
        }
        let time = |name: &str, default: Timestamp| match parameters.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                let time = value.as_str().and_then(|text| time(text, now, name == "until"));
                time.map(whole_second).ok_or_else(|| {
                    invalid(&format!("{name} is not an ISO 8601 date-time, a date or a relative time"))
                })
            }
        };
        let (since, until) = (time("since", now - SignedDuration::from_secs(DAY))?, time("until", now)?);
        if since > until {
            return Err(invalid("since is after until"));
        }
        if until.duration_since(since) > LONGEST {
            return Err(invalid("the time between since and until is longer than 90 days"));
        }
        let number = |name: &str, default: u64| match parameters.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_u64(),
        };
        let offset = number("offset", 0).filter(|offset| *offset <= 1_000_000);
        let limit = number("limit", 100).filter(|limit| (1..=1000).contains(limit));
        Ok(Self {
            ds_ids,
            status_codes,
            since,
            until,
            offset: offset.ok_or_else(|| invalid("offset is not a whole number from 0 to 1000000"))?,
            limit: limit.ok_or_else(|| invalid("limit is not a whole number from 1 to 1000"))?,
        })
    }

    /// Whether a query that was requested then and has this status code matches. The data source is not tested.
    pub(super) fn holds(&self, requested: Timestamp, status_code: &str) -> bool {
        let listed = || self.status_codes.iter().any(|code| code.eq_ignore_ascii_case(status_code));
        (self.since..=self.until).contains(&requested) && (self.status_codes.is_empty() || listed())
    }
}

/// The vendor writes no fractions of a second.
pub(super) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A text, in which commas separate items, or a list of texts; `None` for anything else.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    let items: Vec<&str> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split(',').collect(),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return None,
    };
    Some(items.into_iter().map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

/// A date-time (in UTC, unless it has an offset), a date (its beginning, or its end for `until`), or a relative time.
fn time(text: &str, now: Timestamp, is_until: bool) -> Option<Timestamp> {
    let day = |date: Date| {
        let time = if is_until { date.at(23, 59, 59, 0) } else { date.at(0, 0, 0, 0) };
        Offset::UTC.to_timestamp(time).ok()
    };
    // A date parses also from a date-time, whose time it drops.
    if text.len() == "2026-01-01".len()
        && let Ok(date) = text.parse()
    {
        return day(date);
    }
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return Offset::UTC.to_timestamp(time).ok();
    }
    let words = text.trim().to_lowercase().replace('_', " ");
    let today = Offset::UTC.to_datetime(now).date();
    match words.as_str() {
        "now" => Some(now),
        "today" => day(today),
        "yesterday" => day(today.yesterday().ok()?),
        words => now.checked_sub(ago(words)?).ok(),
    }
}

/// `4 hours ago` or `-4 hours`.
fn ago(words: &str) -> Option<SignedDuration> {
    let span = words.strip_suffix(" ago").or_else(|| words.strip_prefix('-'))?.trim();
    let (number, unit) = span.split_at(span.find(|digit: char| !digit.is_ascii_digit())?);
    let unit = unit.trim();
    let seconds = match unit.strip_suffix('s').unwrap_or(unit) {
        "second" => 1,
        "minute" => 60,
        "hour" => HOUR,
        "day" => DAY,
        "week" => 7 * DAY,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(seconds).map(SignedDuration::from_secs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: &Value) -> Result<SimHistoryFilter, Refusal> {
        let now = "2026-03-05T12:30:00Z".parse().unwrap();
        SimHistoryFilter::read(parameters.as_object().unwrap(), now)
    }

    #[test]
    fn omitted_parameters_have_the_documented_defaults() {
        assert_eq!(
            read(&json!({"ds_ids": "GAWA"})),
            Ok(SimHistoryFilter {
                ds_ids: vec!["gawa".to_owned()],
                status_codes: vec![],
                since: "2026-03-04T12:30:00Z".parse().unwrap(),
                until: "2026-03-05T12:30:00Z".parse().unwrap(),
                offset: 0,
                limit: 100,
            })
        );
    }

    #[test]
    fn texts_and_lists_are_equivalent() {
        let as_text = read(&json!({"ds_ids": "GA, aw", "status_codes": "running,QUEUED"}));
        let as_list = read(&json!({"ds_ids": ["ga", "AW"], "status_codes": ["Running", "queued"]}));
        assert_eq!((&as_text, as_text.is_ok()), (&as_list, true));
    }

    #[test]
    fn since_and_until_are_read_in_each_form() {
        // (text, as since, as until)
        let table = [
            ("2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z"),
            ("2026-03-05T10:00:00", "2026-03-05T10:00:00Z", "2026-03-05T10:00:00Z"),
            ("2026-03-05T10:00:00+02:00", "2026-03-05T08:00:00Z", "2026-03-05T08:00:00Z"),
            ("2026-03-05", "2026-03-05T00:00:00Z", "2026-03-05T23:59:59Z"),
            ("now", "2026-03-05T12:30:00Z", "2026-03-05T12:30:00Z"),
            ("today", "2026-03-05T00:00:00Z", "2026-03-05T23:59:59Z"),
            ("Yesterday", "2026-03-04T00:00:00Z", "2026-03-04T23:59:59Z"),
            ("-4 hours", "2026-03-05T08:30:00Z", "2026-03-05T08:30:00Z"),
            ("10 minutes ago", "2026-03-05T12:20:00Z", "2026-03-05T12:20:00Z"),
            ("1_day_ago", "2026-03-04T12:30:00Z", "2026-03-04T12:30:00Z"),
        ];
        let now = "2026-03-05T12:30:00Z".parse().unwrap();
        for (text, since, until) in table {
            assert_eq!(time(text, now, false), since.parse().ok(), "since {text}");
            assert_eq!(time(text, now, true), until.parse().ok(), "until {text}");
        }
    }

    #[test]
    fn invalid_parameters_are_refused_with_their_name() {
        let table = [
            (json!({}), "ds_ids"),
            (json!({"ds_ids": []}), "ds_ids"),
            (json!({"ds_ids": [1]}), "ds_ids"),
            (json!({"ds_ids": "A", "status_codes": "PROCESS_EXITED"}), "status_codes"),
            (json!({"ds_ids": "A", "since": "soon"}), "since"),
            (json!({"ds_ids": "A", "since": "4 hours"}), "since"),
            (json!({"ds_ids": "A", "until": 5}), "until"),
            (json!({"ds_ids": "A", "since": "2026-03-05", "until": "2026-03-04"}), "after"),
            (json!({"ds_ids": "A", "since": "91 days ago"}), "90 days"),
            (json!({"ds_ids": "A", "offset": -1}), "offset"),
            (json!({"ds_ids": "A", "limit": 0}), "limit"),
            (json!({"ds_ids": "A", "limit": 1001}), "limit"),
        ];
        for (parameters, part) in table {
            let (_, description) = read(&parameters).expect_err("refused");
            assert!(description.contains(part), "{parameters}: {description}");
        }
    }
}
