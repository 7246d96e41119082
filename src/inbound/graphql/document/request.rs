//! The parameters of a request, from JSON or from the query component of a URL: the same for every transport. Only their
//! shape is checked here: `query` need only be a string.

use async_graphql::Variables;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::persisted::DocumentRequest;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// The text of a request: a body, or the query component of a URL.
#[derive(Clone, Copy, Debug)]
pub(in crate::inbound::graphql) enum RequestText<'a> {
    Json(&'a [u8]),
    Url(&'a str),
}

/// A well-formed GraphQL-over-HTTP request. Of `extensions` only the hash of a persisted query is read.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct GraphqlRequest {
    pub(in crate::inbound::graphql) document: DocumentRequest,
    pub(in crate::inbound::graphql) operation_name: Option<String>,
    pub(in crate::inbound::graphql) variables: Variables,
}

/// The body before its members are parsed. A member that is `null` counts as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestEnvelope<'a> {
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(borrow)]
    document_id: Option<&'a RawValue>,
    #[serde(borrow)]
    operation_name: Option<&'a RawValue>,
    #[serde(borrow)]
    variables: Option<&'a RawValue>,
    #[serde(borrow)]
    extensions: Option<&'a RawValue>,
}

/// Any JSON object.
type JsonObject = serde_json::Map<String, serde_json::Value>;

impl GraphqlRequest {
    /// Parses a request.
    pub(in crate::inbound::graphql) fn parse(text: RequestText<'_>) -> Result<Self, HttpRefusal> {
        match text {
            RequestText::Json(body) => Self::from_json(body),
            RequestText::Url(component) => Self::from_url(component),
        }
    }

    /// Parses a JSON body. Unknown members are ignored, as the specification requires.
    pub(in crate::inbound::graphql) fn from_json(bytes: &[u8]) -> Result<Self, HttpRefusal> {
        let unreadable = |message: &'static str| HttpRefusal::new(RefusalKind::Unreadable, message);
        let text = std::str::from_utf8(bytes).map_err(|_| unreadable("the body is not UTF-8"))?;
        if !text.trim_start().starts_with('{') {
            return Err(match serde_json::from_str::<&RawValue>(text) {
                Err(_) => unreadable("the body is not JSON; send an object with a member \"query\""),
                Ok(array) if array.get().starts_with('[') => {
                    malformed("batches are not supported; send one request at a time")
                }
                Ok(_) => malformed("the body must be a JSON object with a member \"query\""),
            });
        }
        let envelope: RequestEnvelope<'_> =
            serde_json::from_str(text).map_err(|error| match error.classify() {
                Category::Data => malformed("the body has a duplicate member; send each member once"),
                Category::Io | Category::Syntax | Category::Eof => {
                    let (line, column) = (error.line(), error.column());
                    let message =
                        format!("the body is not valid JSON: syntax error at line {line}, column {column}");
                    HttpRefusal::new(RefusalKind::Unreadable, message)
                }
            })?;
        let extensions: Option<JsonObject> =
            member("extensions", "an object", envelope.extensions.map(RawValue::get))?;
        let query = member("query", "a string with a GraphQL document", envelope.query.map(RawValue::get))?;
        let id = member("documentId", "a string", envelope.document_id.map(RawValue::get))?;
        Ok(Self {
            document: document_request(query, id, extensions.as_ref())?,
            operation_name: member("operationName", "a string", envelope.operation_name.map(RawValue::get))?
                .filter(|name: &String| !name.is_empty()),
            variables: variables(envelope.variables.map(RawValue::get))?,
        })
    }

    /// Parses the query component of a URL. An empty parameter counts as absent.
    pub(in crate::inbound::graphql) fn from_url(component: &str) -> Result<Self, HttpRefusal> {
        const NAMES: [&str; 5] = ["query", "operationName", "variables", "extensions", "documentId"];
        let mut found: [Option<String>; 5] = [const { None }; 5];
        for (name, value) in form_urlencoded::parse(component.as_bytes()) {
            let slots = NAMES.iter().zip(&mut found);
            let Some((name, slot)) = slots.into_iter().find(|(known, _)| **known == name) else { continue };
            if slot.is_some() {
                return Err(malformed(format!("{name} occurs twice in the URL; send it once")));
            }
            *slot = Some(value.into_owned());
        }
        let [query, operation_name, variables_text, extensions, id] =
            found.map(|value| value.filter(|value| !value.is_empty()));
        let extensions: Option<JsonObject> = member("extensions", "a JSON object", extensions.as_deref())?;
        Ok(Self {
            document: document_request(query, id, extensions.as_ref())?,
            operation_name,
            variables: variables(variables_text.as_deref())?,
        })
    }
}

/// The document of a request. A persisted query of another version than 1 is an unrelated extension and ignored.
fn document_request(
    text: Option<String>,
    id: Option<String>,
    extensions: Option<&JsonObject>,
) -> Result<DocumentRequest, HttpRefusal> {
    let persisted = extensions.and_then(|extensions| extensions.get("persistedQuery"));
    let persisted = persisted.filter(|persisted| persisted["version"] == 1);
    let hash = persisted.and_then(|persisted| persisted["sha256Hash"].as_str());
    let id = id.or_else(|| hash.map(ToOwned::to_owned));
    if text.is_none() && id.is_none() {
        return Err(missing_query());
    }
    Ok(DocumentRequest { text, id })
}

fn variables(text: Option<&str>) -> Result<Variables, HttpRefusal> {
    let shape = "a JSON object of about 120 levels at most, with numbers in range";
    Ok(member("variables", shape, text)?.unwrap_or_default())
}

/// Parses a member of which only the type can be wrong; `null` counts as absent.
fn member<T: DeserializeOwned>(
    name: &str,
    shape: &str,
    text: Option<&str>,
) -> Result<Option<T>, HttpRefusal> {
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(text).map_err(|_| malformed(format!("{name} must be {shape}")))
}

fn missing_query() -> HttpRefusal {
    malformed("query is missing; it must be a string with a GraphQL document")
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> HttpRefusal {
    HttpRefusal::new(RefusalKind::Malformed, message)
}
