//! Negotiates media types: the type of the response, and whether the type of the body is supported.

use async_graphql::parser::types::OperationType;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::inbound::http::error::{GRAPHQL_RESPONSE, HttpRefusal, RefusalKind};
use crate::inbound::streams::Transport;

/// The media types of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseType {
    /// `application/graphql-response+json`.
    Graphql,
    /// `application/json`, for clients that do not accept the other one.
    Json,
}

impl ResponseType {
    /// The content type of a response that was executed. All others are `application/graphql-response+json`: a client
    /// that does not support it reads the status.
    pub(super) const fn content_type(self) -> HeaderValue {
        match self {
            Self::Graphql => GRAPHQL_RESPONSE,
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
        }
    }
}

/// The response forms that a client accepts, each with its quality in thousandths. At least one is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    single: Option<(ResponseType, u16)>,
    stream: Option<(Transport, u16)>,
}

impl Accepted {
    /// Whether a client accepts a stream.
    pub(super) const fn streams(self) -> bool {
        self.stream.is_some()
    }

    /// Chooses by the operation, if it is known: a subscription needs a stream; anything else is streamed only to a
    /// client that prefers a stream to a single response.
    pub(super) fn form(self, operation: Option<OperationType>) -> ResponseForm {
        match (self.single, self.stream) {
            (_, Some((transport, _))) if operation == Some(OperationType::Subscription) => {
                ResponseForm::Stream(transport)
            }
            (Some((single, single_q)), Some((transport, stream_q))) => {
                if stream_q > single_q {
                    ResponseForm::Stream(transport)
                } else {
                    ResponseForm::Single(single)
                }
            }
            (None, Some((transport, _))) => ResponseForm::Stream(transport),
            (Some((single, _)), None) => ResponseForm::Single(single),
            (None, None) => ResponseForm::Single(ResponseType::Json),
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseForm {
    /// One response.
    Single(ResponseType),
    /// A stream of answers.
    Stream(Transport),
}

/// Parses `Accept`. A stream must be named explicitly: a client that accepts anything gets one response.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Accepted, HttpRefusal> {
    let mut sent = headers.get_all(header::ACCEPT).iter();
    // what most clients send
    if let (first, None) = (sent.next(), sent.next())
        && first.is_none_or(|accept| accept == "*/*" || accept == "application/json")
    {
        return Ok(Accepted { single: Some((ResponseType::Json, 1000)), stream: None });
    }
    let single = response_type(headers);
    let stream = joined(headers, &header::ACCEPT).and_then(|accept| stream_type(&accept));
    match (single, stream) {
        (Err(refusal), None) => Err(refusal),
        (single, stream) => Ok(Accepted { single: single.ok(), stream }),
    }
}

/// The kind of stream with the highest quality; GraphQL-SSE if they are equal.
fn stream_type(accept: &str) -> Option<(Transport, u16)> {
    let mut best: Option<(Transport, u16)> = None;
    for range in split(accept, ',') {
        let Some((essence, quality)) = media_range(range) else { continue };
        let transport = match essence.as_str() {
            "text/event-stream" => Transport::Sse,
            // the same type with this parameter is for `@defer`, which is not supported
            "multipart/mixed" if !range.to_ascii_lowercase().contains("deferspec") => Transport::Multipart,
            _ => continue,
        };
        let better = best
            .is_none_or(|(kind, held)| quality > held || (quality == held && kind == Transport::Multipart));
        if quality > 0 && better {
            best = Some((transport, quality));
        }
    }
    best
}

/// Chooses by `Accept`: the highest quality, and if they are equal `application/graphql-response+json` if the client
/// names it, else `application/json`. So a client that accepts anything gets the type that every client can read.
fn response_type(headers: &HeaderMap) -> Result<(ResponseType, u16), HttpRefusal> {
    let Some(accept) = joined(headers, &header::ACCEPT) else { return Ok((ResponseType::Json, 1000)) };
    let mut graphql = Quality::default();
    let mut json = Quality::default();
    for range in split(&accept, ',') {
        let Some((essence, quality)) = media_range(range) else { continue };
        match essence.as_str() {
            "application/graphql-response+json" => graphql.offer(2, quality),
            "application/json" => json.offer(2, quality),
            "application/*" => {
                graphql.offer(1, quality);
                json.offer(1, quality);
            }
            "*/*" => {
                graphql.offer(0, quality);
                json.offer(0, quality);
            }
            _ => {}
        }
    }
    match (graphql.thousandths, json.thousandths) {
        (0, 0) => Err(HttpRefusal::new(
            RefusalKind::NotAcceptable,
            "no media type in accept is supported; accept application/graphql-response+json, \
                application/json or text/event-stream",
        )),
        (graphql_q, json_q) if graphql_q > json_q => Ok((ResponseType::Graphql, graphql_q)),
        (graphql_q, json_q) if graphql_q == json_q && graphql.specific == Some(2) => {
            Ok((ResponseType::Graphql, graphql_q))
        }
        (_, json_q) => Ok((ResponseType::Json, json_q)),
    }
}

/// The quality of one of our types: that of the most specific matching range, the best among equals.
#[derive(Default)]
struct Quality {
    specific: Option<u8>,
    thousandths: u16,
}

impl Quality {
    fn offer(&mut self, specific: u8, thousandths: u16) {
        if self.specific < Some(specific) {
            *self = Self { specific: Some(specific), thousandths };
        } else if self.specific == Some(specific) {
            self.thousandths = self.thousandths.max(thousandths);
        }
    }
}

/// Checks that the content type is UTF-8 JSON. Every type that a form of another site could send without a preflight
/// request is rejected here.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), HttpRefusal> {
    let unsupported =
        |message: &'static str| Err(HttpRefusal::new(RefusalKind::UnsupportedMediaType, message));
    let mut sent = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (sent.next(), sent.next()) else {
        return unsupported("send one content-type header: application/json");
    };
    // what most clients send
    if value == "application/json" && !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(());
    }
    let Ok(value) = value.to_str() else { return unsupported("the content-type must be application/json") };
    let mut parts = split(value, ';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return unsupported("the content-type must be application/json");
    }
    if !parts.all(charset_is_utf8) {
        return unsupported("the body must be UTF-8; remove charset from content-type");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            unsupported("compressed request bodies are not supported; remove content-encoding")
        }
        _ => Ok(()),
    }
}

/// Returns the type of a media range in lower case and its quality in thousandths; none if it cannot match.
fn media_range(range: &str) -> Option<(String, u16)> {
    let mut parts = split(range, ';').map(str::trim);
    let essence = parts.next()?.to_ascii_lowercase();
    let mut quality = 1000;
    for parameter in parts {
        match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("q") => {
                quality = thousandths(value.trim())?;
            }
            _ if charset_is_utf8(parameter) => {}
            _ => return None,
        }
    }
    Some((essence, quality))
}

/// Parses a quality of RFC 9110: `0` to `1` with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(decimals),
        "1" if decimals == 0 => Some(1000),
        _ => None,
    }
}

/// True of every parameter but a charset other than UTF-8.
fn charset_is_utf8(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    }
}

/// All values of a header as one list; none if it is absent or empty. A value that is not ASCII matches nothing.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    let joined = values.join(",");
    (!joined.trim().is_empty()).then_some(joined)
}

/// Splits at a separator outside of quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let now_escaped = quoted && !escaped && character == '\\';
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = now_escaped;
        character == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn accept_chooses_the_response_type() {
        use ResponseType::{Graphql, Json};
        for (accept, expected) in [
            (&[][..], Some(Json)),
            (&[""], Some(Json)),
            (&["*/*"], Some(Json)),
            (&["application/*"], Some(Json)),
            (&["application/json"], Some(Json)),
            (&["application/graphql-response+json"], Some(Graphql)),
            (&["Application/GraphQL-Response+JSON; Charset=UTF-8"], Some(Graphql)),
            (&["application/graphql-response+json, application/json;q=0.9"], Some(Graphql)),
            (&["application/json, application/graphql-response+json"], Some(Graphql)),
            (&["application/json", "application/graphql-response+json"], Some(Graphql)),
            (&["application/graphql-response+json, */*"], Some(Graphql)),
            (&["application/graphql-response+json;q=0.5, application/json"], Some(Json)),
            (&["application/graphql-response+json;q=0.5, */*;q=0.8"], Some(Json)),
            (&["application/graphql-response+json;q=0, */*"], Some(Json)),
            (&["application/json;q=0, */*;q=0.1"], Some(Graphql)),
            (&["application/json;q=0, application/*;q=0.2, */*"], Some(Graphql)),
            (&["text/html, application/xhtml+xml, */*;q=0.8"], Some(Json)),
            (&["text/x;a=\"b, application/json\", application/json"], Some(Json)),
            (&["multipart/mixed;deferSpec=20220824, application/json"], Some(Json)),
            (&["text/x;a=\"b, application/json\""], None),
            (&["text/html"], None),
            (&["application/json;charset=iso-8859-1"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=2"], None),
            (&["application/json;q=0.1234"], None),
            (&["*/*;q=0"], None),
            (&["garbage"], None),
        ] {
            assert_eq!(
                response_type(&headers(&header::ACCEPT, accept)).ok().map(|(kind, _)| kind),
                expected,
                "{accept:?}"
            );
        }
    }

    #[test]
    fn stream_transport_must_be_named_in_the_accept_header() {
        use OperationType::{Query, Subscription};
        const SSE: ResponseForm = ResponseForm::Stream(Transport::Sse);
        const PARTS: ResponseForm = ResponseForm::Stream(Transport::Multipart);
        const JSON: ResponseForm = ResponseForm::Single(ResponseType::Json);
        const GRAPHQL: ResponseForm = ResponseForm::Single(ResponseType::Graphql);
        let apollo = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\",application/graphql-response+json,application/json;q=0.9";
        let deferring = "multipart/mixed;deferSpec=20220824,application/json";
        let urql = "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed";
        for (accept, query, subscription) in [
            ("text/event-stream", SSE, SSE),
            ("TEXT/Event-Stream; q=0.1", SSE, SSE),
            ("multipart/mixed;subscriptionSpec=\"1.0\"", PARTS, PARTS),
            ("multipart/mixed", PARTS, PARTS),
            (apollo, GRAPHQL, PARTS),
            (deferring, JSON, JSON),
            (urql, GRAPHQL, SSE),
            ("multipart/mixed, text/event-stream", SSE, SSE),
            ("multipart/mixed, text/event-stream;q=0.9", PARTS, PARTS),
            ("application/json;q=0.5, text/event-stream", SSE, SSE),
            ("*/*", JSON, JSON),
            ("text/*", JSON, JSON),
            ("application/json, text/event-stream;q=0", JSON, JSON),
        ] {
            let Ok(accepted) = accepted(&headers(&header::ACCEPT, &[accept])) else {
                assert_eq!(accept, "text/*");
                continue;
            };
            let forms = (accepted.form(Some(Query)), accepted.form(Some(Subscription)));
            assert_eq!(forms, (query, subscription), "{accept}");
        }
    }

    #[test]
    fn only_utf8_json_bodies_are_read() {
        for (content_type, read) in [
            (&["application/json"][..], true),
            (&["Application/JSON;Charset=\"UTF-8\""], true),
            (&["application/json; charset=utf-8; odd=1"], true),
            (&[], false),
            (&[""], false),
            (&["application/json", "application/json"], false),
            (&["application/json, application/json"], false),
            (&["application/json; charset=utf-16"], false),
            (&["application/graphql"], false),
            (&["application/graphql-response+json"], false),
            (&["application/x-www-form-urlencoded"], false),
            (&["multipart/form-data; boundary=x"], false),
            (&["text/plain"], false),
            (&["text/plain; application/json"], false),
            (&["application/jsonx"], false),
        ] {
            let verdict = check_content_type(&headers(&header::CONTENT_TYPE, content_type));
            assert_eq!(verdict.is_ok(), read, "{content_type:?}");
        }
    }
}
