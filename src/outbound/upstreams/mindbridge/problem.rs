//! Recognizes the error bodies of MindBridge itself. Intermediaries send errors too: an ingress without a route, a
//! proxy, a maintenance page. Those contain no information about a job.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::outbound::upstreams::wire::{non_blank, object, tolerant, whole};

/// The members of MindBridge's dialect of RFC 7807 that distinguish it from other JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(rename = "type", deserialize_with = "tolerant")]
    kind: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    title: Option<String>,
    #[serde(deserialize_with = "whole")]
    status: Option<u16>,
    #[serde(deserialize_with = "tolerant")]
    instance: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    origin: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    problems: Option<Vec<serde_json::Value>>,
}

/// Returns whether a response is MindBridge's own JSON error ("Limits and errors"): a JSON object in its dialect of RFC
/// 7807 that contradicts neither itself nor the HTTP status.
///
/// Which members every error has is not documented, so a title and one more are sufficient, or a list of problems.
pub(super) fn is_own_error(status: StatusCode, body: &[u8]) -> bool {
    let Some(document) = object::<Document>(body) else { return false };
    let Document { kind, title, status: body_status, instance, origin, problems } = document;
    if body_status.is_some_and(|non_blank| non_blank != status.as_u16()) {
        return false;
    }
    let titled = non_blank(title.as_ref()).is_some();
    let more = body_status.is_some()
        || [&kind, &instance, &origin].into_iter().any(|text| non_blank(text.as_ref()).is_some());
    let listed = problems.is_some_and(|problems| problems.iter().any(serde_json::Value::is_object));
    (titled && more) || listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::testing::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn only_mindbridge_error_bodies_are_recognized() {
        let full = json!({
            "type": "https://developer.mindbridge.ai/problems/not-found", "title": "Not Found", "status": 404,
            "instance": "/api/v1/async-results/j", "origin": "gateway-1",
            "problems": [{"problemType": "NOT_FOUND", "severity": "ERROR", "reason": "no such result"}],
        });
        let cases = [
            (full.to_string(), true),
            (format!("  {full}\n"), true),
            (json!({"title": "Not Found", "status": 404}).to_string(), true),
            (json!({"title": "Not Found", "type": "about:blank"}).to_string(), true),
            (json!({"title": "Not Found", "origin": "api"}).to_string(), true),
            (json!({"problems": [{"problemType": "NOT_FOUND"}]}).to_string(), true),
            (json!({"title": "Not Found", "status": "404"}).to_string(), true),
            (json!({"title": "Not Found", "status": "503"}).to_string(), false),
            (json!({"title": "Not Found", "status": 503}).to_string(), false),
            (json!({"title": "Not Found"}).to_string(), false),
            (json!({"title": " ", "status": 404}).to_string(), false),
            (json!({"status": 404}).to_string(), false),
            (json!({"problems": []}).to_string(), false),
            (json!({"problems": ["NOT_FOUND"]}).to_string(), false),
            (json!({"message": "no Route matched with those values"}).to_string(), false),
            (json!({"timestamp": 1, "status": 404, "error": "Not Found", "path": "/"}).to_string(), false),
            (
                json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).to_string(),
                false,
            ),
            (json!([full]).to_string(), false),
            ("default backend - 404".to_owned(), false),
            ("<html><title>404</title></html>".to_owned(), false),
            ("\"Not Found\"".to_owned(), false),
            ("{}".to_owned(), false),
            (String::new(), false),
        ];
        for (body, expected) in cases {
            assert_eq!(is_own_error(StatusCode::NOT_FOUND, body.as_bytes()), expected, "{body}");
        }
        assert!(!is_own_error(StatusCode::GONE, full.to_string().as_bytes()), "it contains another status");
    }

    proptest! {
        #[test]
        fn any_body_is_classified_without_a_panic(body in any_json(&["type", "title", "status", "origin", "problems"], &["Not Found"], 3)) {
            is_own_error(StatusCode::NOT_FOUND, body.to_string().as_bytes());
        }
    }
}
