//! The messages of `graphql-transport-ws` (<https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>): those of
//! the client, and those of the server. An invalid message closes the socket; it is never repeated.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::inbound::auth::bearer;
use crate::inbound::graphql::document::request::GraphqlRequest;
use crate::inbound::streams::EndReason;
use crate::telemetry::trace::TraceContext;

/// The longest id of an operation, in bytes; clients send a UUID or a number.
const MAX_ID: usize = 128;

/// A message of the client.
#[derive(Debug)]
pub(super) enum ClientMessage {
    Init(Map<String, Value>),
    Ping(Option<String>),
    /// A ping with a credential, which replaces the current one of the socket.
    Renew(Map<String, Value>),
    Pong,
    Subscribe {
        id: String,
        parameters: GraphqlRequest,
    },
    Complete {
        id: String,
    },
}

#[derive(Deserialize)]
struct MessageEnvelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl ClientMessage {
    /// Parses a text message. A payload that is `null` counts as absent.
    pub(super) fn parse(text: &str) -> Result<Self, EndReason> {
        let not_json = |_| EndReason::NotJson;
        if !text.trim_start().starts_with('{') {
            serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
            return Err(EndReason::NoType);
        }
        let envelope: MessageEnvelope<'_> =
            serde_json::from_str(text).map_err(|error| match error.classify() {
                Category::Data => EndReason::WrongShape,
                Category::Io | Category::Syntax | Category::Eof => EndReason::NotJson,
            })?;
        let Some(kind) = envelope.kind.and_then(|kind| string(kind.get())) else {
            return Err(EndReason::NoType);
        };
        let payload = envelope.payload.map(RawValue::get);
        let object = || match payload {
            None => Ok(Map::new()),
            Some(payload) => serde_json::from_str(payload).map_err(|_| EndReason::WrongShape),
        };
        let id = || {
            let id = envelope.id.and_then(|id| string(id.get()));
            let id = id.filter(|id| (1..=MAX_ID).contains(&id.len()));
            id.map(Cow::into_owned).ok_or(EndReason::WrongShape)
        };
        match &*kind {
            "connection_init" => Ok(Self::Init(object()?)),
            "ping" => object().map(|object| {
                if credentials(&object).next().is_some() {
                    Self::Renew(object)
                } else {
                    Self::Ping(payload.map(ToOwned::to_owned))
                }
            }),
            "pong" => object().map(|_| Self::Pong),
            "subscribe" => {
                let parameters = GraphqlRequest::from_json(payload.unwrap_or_default().as_bytes());
                Ok(Self::Subscribe { id: id()?, parameters: parameters.map_err(|_| EndReason::WrongShape)? })
            }
            "complete" => Ok(Self::Complete { id: id()? }),
            "start" | "stop" | "connection_terminate" => Err(EndReason::LegacyProtocol),
            _ => Err(EndReason::UnknownType),
        }
    }
}

fn string(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct MessageText<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<MessageText<'_>>(json).ok().map(|text| text.0)
}

/// The members of a payload that contain a credential: `authorization` in any case, like the name of a header, in the
/// payload or in its member `headers`.
fn credentials(payload: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let headers = payload.get("headers").and_then(Value::as_object).into_iter().flatten();
    let named = payload.iter().chain(headers).filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    named.map(|(_, value)| value).filter(|value| !value.is_null())
}

/// The credential of a payload, if there is one; it may be repeated if all are equal.
pub(super) fn credential(payload: &Map<String, Value>) -> Result<Option<SecretString>, EndReason> {
    let mut each = credentials(payload)
        .map(|value| value.as_str().and_then(bearer::from_payload).ok_or(EndReason::CredentialMalformed));
    let Some(first) = each.next().transpose()? else { return Ok(None) };
    for other in each {
        if other?.expose_secret() != first.expose_secret() {
            return Err(EndReason::CredentialMalformed);
        }
    }
    Ok(Some(first))
}

/// The trace context for the operations of the socket, from the members `traceparent` and `tracestate` of a payload, as
/// in HTTP.
pub(super) fn trace_context(payload: &Map<String, Value>) -> Option<Box<TraceContext>> {
    let mut headers = HeaderMap::new();
    for name in ["traceparent", "tracestate"] {
        let value = payload.get(name).and_then(Value::as_str);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    if headers.is_empty() {
        return None;
    }
    Some(TraceContext::of_headers(&headers)).filter(TraceContext::is_somewhere).map(Box::new)
}

/// The response to a `ping` whose credential is accepted.
pub(super) const RENEWED: &str = r#"{"type":"pong","payload":{"renewed":true}}"#;

/// The response to a `connection_init`.
pub(super) const ACK: &str = r#"{"type":"connection_ack"}"#;

/// The response to a `ping`, with the same payload.
pub(super) fn pong(payload: Option<&str>) -> String {
    match payload {
        None => r#"{"type":"pong"}"#.to_owned(),
        Some(payload) => format!(r#"{{"type":"pong","payload":{payload}}}"#),
    }
}

/// A message about one operation up to its payload; behind the payload, it ends with [`END`].
pub(super) fn opening(id: &str, kind: &'static str, has_payload: bool) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    // the ids of common clients need no escape
    let (quote, id) = if id.bytes().all(is_plain) {
        ("\"", Cow::Borrowed(id))
    } else {
        ("", Cow::Owned(Value::from(id).to_string()))
    };
    let name = if has_payload { ",\"payload\":" } else { "" };
    ["{\"id\":", quote, &id, quote, ",\"type\":\"", kind, "\"", name].concat()
}

/// The end of a message about an operation.
pub(super) const END: &str = "}";

#[cfg(test)]
mod tests {
    use super::*;

    fn about(id: &str, kind: &'static str, payload: Option<&str>) -> String {
        [&opening(id, kind, payload.is_some()), payload.unwrap_or_default(), END].concat()
    }

    #[test]
    fn message_about_an_operation_is_json_for_any_id() {
        for id in ["1", "b5ef-4f", "a b", "\"", "\\", "\n", "ü"] {
            let next: Value = serde_json::from_str(&about(id, "next", Some("{\"data\":1}"))).unwrap();
            assert_eq!(next, serde_json::json!({ "id": id, "type": "next", "payload": { "data": 1 } }));
            let complete: Value = serde_json::from_str(&about(id, "complete", None)).unwrap();
            assert_eq!(complete, serde_json::json!({ "id": id, "type": "complete" }));
        }
        assert_eq!(about("1", "next", Some("{}")), r#"{"id":"1","type":"next","payload":{}}"#);
    }
}
