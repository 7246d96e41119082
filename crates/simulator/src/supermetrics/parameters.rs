//! The status call's parameters, in either of their two forms: one `json` object, or flat.

use secrecy::SecretString;
use serde_json::Value;
use url::form_urlencoded;

use crate::request::note;

/// The parsed parameters, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct RequestParameters {
    pub(super) schedule_id: Option<String>,
    pub(super) offset_start: Option<u64>,
    pub(super) offset_end: Option<u64>,
    pub(super) api_key: Option<SecretString>,
    /// What a correct client would not have sent.
    pub(super) violations: Vec<String>,
    /// Why the service rejects them.
    pub(super) refusal: Option<String>,
}

impl RequestParameters {
    /// Reads a query string.
    pub(super) fn read(query: &str) -> Self {
        let mut parameters = Self::default();
        let mut pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let given = pairs.len();
        pairs.sort_by(|left, right| left.0.cmp(&right.0));
        pairs.dedup_by(|left, right| left.0 == right.0);
        if pairs.len() < given {
            parameters.violations.push("a query parameter given twice".to_owned());
        }
        if pairs.len() > 1 && pairs.iter().any(|(name, _)| name == "json") {
            parameters.violations.push("both parameter forms at once".to_owned());
        }
        for (name, text) in pairs {
            if name == "json" {
                parameters.read_object(&text);
            } else {
                // A flat number is text on the wire; anything else stays text.
                let value = text.parse::<i64>().map_or(Value::String(text), Value::from);
                parameters.read_one(&name, value, true);
            }
        }
        if parameters.offset_start.zip(parameters.offset_end).is_some_and(|(start, end)| end < start) {
            note(&mut parameters.refusal, "offset_end is before offset_start");
        }
        parameters
    }

    fn read_object(&mut self, text: &str) {
        let Ok(Value::Object(map)) = serde_json::from_str(text) else {
            self.violations.push("a json parameter that is no JSON object".to_owned());
            note(&mut self.refusal, "the json parameter is not a JSON object");
            return;
        };
        for (name, value) in map {
            self.read_one(&name, value, false);
        }
    }

    fn read_one(&mut self, name: &str, value: Value, flat: bool) {
        match (name, value) {
            ("schedule_id", Value::String(id)) => self.schedule_id = Some(id),
            // In the flat form an id of digits alone looks like a number.
            ("schedule_id", Value::Number(id)) if flat => self.schedule_id = Some(id.to_string()),
            ("api_key", Value::String(key)) => self.api_key = Some(SecretString::from(key)),
            ("api_key", Value::Number(key)) if flat => {
                self.api_key = Some(SecretString::from(key.to_string()));
            }
            ("offset_start", value) => self.offset_start = self.offset(name, &value),
            ("offset_end", value) => self.offset_end = self.offset(name, &value),
            ("schedule_id" | "api_key", _) => note(&mut self.refusal, &format!("{name} is not a text")),
            _ => self.violations.push("an unexpected query parameter".to_owned()),
        }
    }

    fn offset(&mut self, name: &str, value: &Value) -> Option<u64> {
        let offset = value.as_u64();
        if offset.is_none() {
            note(&mut self.refusal, &format!("{name} is not a whole number of 0 or more"));
        }
        offset
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
            let read = RequestParameters::read(query);
            assert_eq!(read.schedule_id.as_deref(), Some("q-1"), "{query}");
            assert_eq!((read.offset_start, read.offset_end), (Some(0), Some(9)), "{query}");
            assert_eq!(read.api_key.as_ref().map(ExposeSecret::expose_secret), Some("k"), "{query}");
            assert_eq!((read.violations, read.refusal), (vec![], None), "{query}");
        }
        assert_eq!(RequestParameters::read("schedule_id=42").schedule_id.as_deref(), Some("42"));
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
            let read = RequestParameters::read(query);
            assert_eq!((read.refusal.is_some(), read.violations.len()), (refused, remarks), "{query}");
        }
    }
}
