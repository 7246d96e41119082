//! The list of stored jobs: the parameters of `GET /v1/jobs`, and its body. The parameters are the arguments of `jobList` in
//! the GraphQL schema; those that are lists are repeated.

use std::collections::BTreeSet;
use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use url::form_urlencoded;

use super::view::JobView;
use crate::domain::state::JobState;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::jobs::Jobs;
use crate::jobs::list::{
    JobListField, JobListFilter, JobListOrder, JobListRequest, JobOrigin, JobPage, ListedJob, SearchText,
};
use crate::jobs::tracking::Labels;

/// The length of a page if it is not requested, and its maximum.
const PAGE: usize = 50;
const PAGE_MAX: usize = 100;
/// The parameters that can be repeated.
const LISTS: [&str; 5] = ["source", "state", "kind", "label", "origin"];
/// The others.
const SINGLE: [&str; 8] =
    ["text", "observedSince", "updatedSince", "orderBy", "direction", "first", "after", "count"];
/// The maximum number of parameters that can be repeated.
const LISTED_MAX: usize = 100;
/// The maximum length of a link to the next page: proxies limit the headers of a response.
const LINK_MAX: usize = 2_000;

/// Parses the query string.
///
/// # Errors
/// 422 with the name of the first parameter that is not valid.
pub(super) fn request(query: Option<&str>) -> Result<JobListRequest, HttpRefusal> {
    let mut request = JobListRequest::new(JobListFilter::default(), PAGE);
    let (mut field, mut direction) = (None, None);
    let (mut listed, mut single) = (0, BTreeSet::new());
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if LISTS.contains(&&*name) {
            listed += 1;
            if listed > LISTED_MAX {
                return Err(invalid("the query string", format!("has more than {LISTED_MAX} filters")));
            }
        } else if let Some(once) = SINGLE.into_iter().find(|one| *one == name)
            && !single.insert(once)
        {
            return Err(invalid(once, "is given twice"));
        }
        let filter = &mut request.filter;
        match &*name {
            "source" => filter.sources.push(value.into_owned()),
            "state" => filter.states.push(one_of("state", &value, JobState::ALL, JobState::name)?),
            "kind" => filter.kinds.push(value.into_owned()),
            "origin" => filter.origins.push(one_of("origin", &value, JobOrigin::ALL, JobOrigin::name)?),
            "label" => {
                let (name, value) =
                    value.split_once('=').ok_or_else(|| invalid("label", "is not name=value"))?;
                let other = filter.labels.insert(name.to_owned(), value.to_owned());
                if other.is_some_and(|other| other != value) {
                    return Err(invalid("label", "has two values for one name; no job has both"));
                }
            }
            "text" => filter.text = SearchText::parse(&value).map_err(|error| invalid("text", error))?,
            "observedSince" => filter.observed_since = Some(time("observedSince", &value)?),
            "updatedSince" => filter.updated_since = Some(time("updatedSince", &value)?),
            "orderBy" => field = Some(one_of("orderBy", &value, JobListField::NAMED, JobListField::name)?),
            "direction" => {
                let descends = |name: bool| if name { "DESC" } else { "ASC" };
                direction = Some(one_of("direction", &value, [false, true], descends)?);
            }
            "first" => {
                let first = value.parse().ok().filter(|first| (1..=PAGE_MAX).contains(first));
                let range = || invalid("first", format!("is not a number from 1 to {PAGE_MAX}"));
                request.first = first.ok_or_else(range)?;
            }
            "after" => request.after = Some(value.into_owned()),
            "count" => {
                request.counts =
                    one_of("count", &value, [false, true], |is| if is { "true" } else { "false" })?;
            }
            _ => {
                let known = [&LISTS[..], &SINGLE[..]].concat().join(", ");
                return Err(invalid("a parameter", format!("is unknown; the parameters are {known}")));
            }
        }
    }
    if let Some(field) = field {
        request.order = JobListOrder { field, descending: direction.unwrap_or(true) };
    } else if direction.is_some() {
        return Err(invalid("direction", "is without orderBy"));
    }
    Ok(request)
}

fn invalid(name: &str, why: impl std::fmt::Display) -> HttpRefusal {
    HttpRefusal::new(RefusalKind::BadInput, format!("{name} {why}"))
}

/// The value with this name, in any case.
fn one_of<T: Copy>(
    parameter: &str,
    value: &str,
    all: impl IntoIterator<Item = T> + Clone,
    name: impl Fn(T) -> &'static str,
) -> Result<T, HttpRefusal> {
    let found = all.clone().into_iter().find(|one| name(*one).eq_ignore_ascii_case(value));
    found.ok_or_else(|| {
        let names: Vec<_> = all.into_iter().map(name).collect();
        invalid(parameter, format!("is not one of {}", names.join(", ")))
    })
}

fn time(parameter: &str, value: &str) -> Result<Timestamp, HttpRefusal> {
    value.parse().map_err(|_| invalid(parameter, "is not a time in RFC 3339, such as 2026-01-31T12:00:00Z"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListBody<'a> {
    jobs: Vec<ListedBody<'a>>,
    next_cursor: Option<&'a str>,
    total_count: Option<usize>,
}

#[derive(Serialize)]
struct ListedBody<'a> {
    job: JobView<'a>,
    labels: &'a Labels,
    origin: &'static str,
}

/// Writes the body.
///
/// # Errors
/// When `out` is full.
pub(super) fn write(jobs: &Jobs, page: &JobPage, counts: bool, out: impl Write) -> serde_json::Result<()> {
    let listed = page.jobs.iter().map(|ListedJob { snapshot, labels, origin, cursor: _ }| ListedBody {
        job: JobView::new(snapshot, jobs.estimate(snapshot)),
        labels,
        origin: origin.name(),
    });
    let body = ListBody {
        jobs: listed.collect(),
        next_cursor: next_cursor(page),
        total_count: counts.then_some(page.total),
    };
    serde_json::to_writer(out, &body)
}

/// The cursor of the next page, if there is one.
fn next_cursor(page: &JobPage) -> Option<&str> {
    page.jobs.last().filter(|_| page.has_next).map(|last| &*last.cursor)
}

/// The value of the header `link` that leads to the next page (RFC 8288), with the other parameters of this one. `None` on
/// the last page, and if it is too long for a header.
pub(super) fn link(query: Option<&str>, page: &JobPage) -> Option<String> {
    let cursor = next_cursor(page)?;
    let mut next = form_urlencoded::Serializer::new(String::new());
    let others = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    next.extend_pairs(others.filter(|(name, _)| name != "after"));
    next.append_pair("after", cursor);
    let link = format!("</v1/jobs?{}>; rel=\"next\"", next.finish());
    Some(link).filter(|link| link.len() <= LINK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        request(Some(query)).unwrap_err().message().to_owned()
    }

    #[test]
    fn parameters_are_those_of_the_job_list() {
        let parsed = request(Some(
            "source=a&source=b&state=running&kind=ANALYSIS_RUN&label=team%3Dgrowth&origin=DISCOVERED&text=Ledger+7&\
             observedSince=2026-01-31T12:00:00Z&orderBy=updated_at&direction=asc&first=7&after=c&count=true",
        ))
        .unwrap();
        assert_eq!(parsed.filter.sources, ["a", "b"]);
        assert_eq!(parsed.filter.states, [JobState::Running]);
        assert_eq!(parsed.filter.kinds, ["ANALYSIS_RUN"]);
        assert_eq!(parsed.filter.labels["team"], "growth");
        assert_eq!(parsed.filter.origins, [JobOrigin::Discovered]);
        assert_eq!(parsed.filter.text, SearchText::parse("ledger 7").unwrap());
        assert_eq!(parsed.order, JobListOrder { field: JobListField::UpdatedAt, descending: false });
        assert_eq!((parsed.first, parsed.after.as_deref(), parsed.counts), (7, Some("c"), true));
        let plain = request(None).unwrap();
        assert_eq!((plain.order, plain.first, plain.counts), (JobListOrder::default(), PAGE, false));
        assert!(request(Some("orderBy=STATE")).unwrap().order.descending, "as in the schema");
    }

    #[test]
    fn invalid_parameter_is_named_with_what_is_valid() {
        for (query, expected) in [
            ("state=done", "state is not one of QUEUED, RUNNING"),
            ("first=0", "first is not a number from 1 to 100"),
            ("first=101", "first is not a number from 1 to 100"),
            ("label=team", "label is not name=value"),
            ("orderBy=id", "orderBy is not one of UPDATED_AT, CREATED_AT, STATE"),
            ("direction=ASC", "direction is without orderBy"),
            ("updatedSince=yesterday", "updatedSince is not a time"),
            ("count=1", "count is not one of false, true"),
            ("first=3&first=4", "first is given twice"),
            ("label=a=1&label=a=2", "label has two values for one name"),
            ("limit=3", "a parameter is unknown; the parameters are source, state"),
        ] {
            let refusal = refusal(query);
            assert!(refusal.starts_with(expected), "{query}: {refusal}");
        }
        assert!(refusal(&format!("text={}", "a".repeat(201))).contains("text is longer than 200 bytes"));
        assert!(refusal(&"state=RUNNING&".repeat(101)).contains("more than 100 filters"));
    }
}
