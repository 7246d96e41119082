//! The parameters of a call, in either of their two forms: one `json` object, or flat.

use secrecy::SecretString;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::request::note;

/// The parameters that are numbers; in the flat form, all others are texts.
const NUMBERS: [&str; 4] = ["offset_start", "offset_end", "offset", "limit"];

/// The parameters as they were sent. Not `Debug`: they can contain the key.
#[derive(Default)]
pub(super) struct GivenParameters {
    pub(super) values: Map<String, Value>,
    /// What a correct client would not have sent.
    pub(super) violations: Vec<String>,
    /// Why the service rejects them.
    pub(super) refusal: Option<String>,
}

impl GivenParameters {
    /// Reads a query string.
    pub(super) fn read(query: &str) -> Self {
        let mut given = Self::default();
        let mut pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        // `name[]=a&name[]=b` is the flat form of a list.
        for (name, text) in pairs.extract_if(.., |(name, _)| name.ends_with("[]")) {
            let name = name.trim_end_matches("[]").to_owned();
            let list = given.values.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().into_iter().for_each(|list| list.push(text.as_str().into()));
        }
        let sent = pairs.len();
        pairs.sort_by(|left, right| left.0.cmp(&right.0));
        pairs.dedup_by(|left, right| left.0 == right.0);
        if pairs.len() < sent {
            given.violations.push("a query parameter given twice".to_owned());
        }
        if pairs.len() + given.values.len() > 1 && pairs.iter().any(|(name, _)| name == "json") {
            given.violations.push("both parameter forms at once".to_owned());
        }
        for (name, text) in pairs {
            if name == "json" {
                given.read_object(&text);
            } else {
                let number = text.parse::<i64>().ok().filter(|_| NUMBERS.contains(&name.as_str()));
                given.values.insert(name, number.map_or(Value::String(text), Value::from));
            }
        }
        given
    }

    fn read_object(&mut self, text: &str) {
        if let Ok(Value::Object(map)) = serde_json::from_str(text) {
            self.values.extend(map);
        } else {
            self.violations.push("a json parameter that is no JSON object".to_owned());
            note(&mut self.refusal, "the json parameter is not a JSON object");
        }
    }

    /// Takes the key out.
    pub(super) fn take_key(&mut self) -> Option<SecretString> {
        self.take_text("api_key").map(SecretString::from)
    }

    fn take_text(&mut self, name: &str) -> Option<String> {
        match self.values.shift_remove(name)? {
            Value::String(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                note(&mut self.refusal, &format!("{name} is not a text"));
                None
            }
        }
    }

    fn take_offset(&mut self, name: &str) -> Option<u64> {
        let offset = self.values.shift_remove(name)?.as_u64();
        if offset.is_none() {
            note(&mut self.refusal, &format!("{name} is not a whole number of 0 or more"));
        }
        offset
    }
}

/// The parameters of the status call, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct StatusParameters {
    pub(super) schedule_id: Option<String>,
    pub(super) offset_start: Option<u64>,
    pub(super) offset_end: Option<u64>,
    pub(super) api_key: Option<SecretString>,
    /// What a correct client would not have sent.
    pub(super) violations: Vec<String>,
    /// Why the service rejects them.
    pub(super) refusal: Option<String>,
}

impl StatusParameters {
    /// Reads a query string.
    pub(super) fn read(query: &str) -> Self {
        let mut given = GivenParameters::read(query);
        let schedule_id = given.take_text("schedule_id");
        let (offset_start, offset_end) = (given.take_offset("offset_start"), given.take_offset("offset_end"));
        let api_key = given.take_key();
        let GivenParameters { values, mut violations, mut refusal } = given;
        violations.extend(values.iter().map(|_| "an unexpected query parameter".to_owned()));
        if offset_start.zip(offset_end).is_some_and(|(start, end)| end < start) {
            note(&mut refusal, "offset_end is before offset_start");
        }
        Self { schedule_id, offset_start, offset_end, api_key, violations, refusal }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn json_and_flat_parameters_are_equivalent() {
        let json = form_urlencoded::Serializer::new(String::new())
            .append_pair("json", r#"{"schedule_id":"q-1","offset_start":0,"offset_end":9,"api_key":"k"}"#)
            .finish();
        for query in [json.as_str(), "schedule_id=q-1&offset_start=0&offset_end=9&api_key=k"] {
            let read = StatusParameters::read(query);
            assert_eq!(read.schedule_id.as_deref(), Some("q-1"), "{query}");
            assert_eq!((read.offset_start, read.offset_end), (Some(0), Some(9)), "{query}");
            assert_eq!(read.api_key.as_ref().map(ExposeSecret::expose_secret), Some("k"), "{query}");
            assert_eq!((read.violations, read.refusal), (vec![], None), "{query}");
        }
        assert_eq!(StatusParameters::read("schedule_id=42").schedule_id.as_deref(), Some("42"));
    }

    #[test]
    fn invalid_parameters_are_refused_or_recorded_as_violations() {
        // (query, refused, remarks)
        let table = [
            ("schedule_id=q&offset_start=-1", true, 0),
            ("schedule_id=q&offset_start=x", true, 0),
            ("schedule_id=q&offset_start=5&offset_end=4", true, 0),
            ("json=%7B", true, 1),
            ("json=%5B%5D", true, 1),
            ("json=%7B%22schedule_id%22%3A1%7D", true, 0),
            ("json=%7B%7D&schedule_id=q", false, 1),
            ("schedule_id=q&schedule_id=r", false, 1),
            ("schedule_id=q&limit=5", false, 1),
        ];
        for (query, refused, remarks) in table {
            let read = StatusParameters::read(query);
            assert_eq!((read.refusal.is_some(), read.violations.len()), (refused, remarks), "{query}");
        }
    }
}
