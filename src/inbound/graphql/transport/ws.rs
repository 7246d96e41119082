//! The upgrade of a request to a WebSocket with `graphql-transport-ws`, and no other protocol. Everything that can be
//! rejected before the upgrade is rejected here: a response has a status and a message, a closed socket only a code.
//! The rest is in `session`.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::stream_refusal::{admission_refusal, limit_refusal};
use crate::inbound::graphql::execution::endpoint::GraphqlEndpoint;

use crate::inbound::auth::bearer;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::streams::Transport;
use crate::telemetry::trace;

mod message;
mod operations;
mod session;
#[cfg(test)]
mod tests;
mod text_frame;

/// The one subprotocol. The legacy `graphql-ws` is another protocol under nearly the same name.
const PROTOCOL: &str = "graphql-transport-ws";

/// The instruction in the response to a handshake without the upgrade.
const NO_UPGRADE: &str = "this is the handshake of a websocket without its upgrade: a proxy on the way removed the headers \
    upgrade and connection; let the proxy pass them on (nginx: proxy_http_version 1.1, proxy_set_header Upgrade \
    $http_upgrade, proxy_set_header Connection \"upgrade\"), or subscribe by text/event-stream";

/// Returns whether a request is the handshake of a WebSocket, also one whose upgrade a proxy has removed.
pub(super) fn is_handshake(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && (lists(headers, &header::UPGRADE, "websocket") || headers.contains_key(header::SEC_WEBSOCKET_KEY))
}

/// Answers 101 and starts the session, or rejects the upgrade.
///
/// # Errors
/// 403 for the page's origin, 426 for a missing upgrade or another version, 400 for the handshake or the subprotocol,
/// 401 for a credential in the header, 429 if the client has reached its limit of streams or its rate, 503 while the
/// process drains.
pub(super) fn upgrade(
    endpoint: &GraphqlEndpoint,
    mut request: Request,
    facts: &RequestFacts,
) -> Result<Response, HttpRefusal> {
    let headers = request.headers();
    let streams = endpoint.streams();
    streams.settings().origins.check(headers, facts.secure())?;
    let key = handshake(headers)?;
    let principal = match bearer::token(headers)? {
        Some(token) => Some(endpoint.authenticate(Some(&token))?),
        None => None,
    };
    if let Some(principal) = &principal {
        facts.set_client(principal);
    }
    let mut guard = streams.open(Transport::WebSocket, principal.as_ref()).map_err(limit_refusal)?;
    if let Some(principal) = &principal {
        endpoint.client_limits().pace(principal)?;
        endpoint.admit_stream(&mut guard, principal).map_err(admission_refusal)?;
    }

    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::try_from(accept).map_err(|_| bad("sec-websocket-key cannot be answered"))?;
    let room = facts.connection().map(|connection| connection.permit.clone());
    let upgraded = hyper::upgrade::on(&mut request);
    // boxed apart from the task, which lasts for hours and has a place for all that it captures
    let opening = Box::new(session::Opening { endpoint: endpoint.clone(), guard, principal, room });
    let task = async move {
        match upgraded.await {
            Ok(socket) => session::run(opening, TokioIo::new(socket)).await,
            Err(error) => tracing::debug!(%error, "websocket upgrade not completed"),
        }
    };
    streams.spawn(trace::TraceContext::here().boxed(task));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
    ] {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// Checks the opening handshake of RFC 6455, and returns the client's key.
fn handshake(headers: &HeaderMap) -> Result<String, HttpRefusal> {
    if !lists(headers, &header::UPGRADE, "websocket") || !lists(headers, &header::CONNECTION, "upgrade") {
        return Err(HttpRefusal::upgrade_required(NO_UPGRADE));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HttpRefusal::upgrade_required("sec-websocket-version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    let Some(key) = key else { return Err(bad("sec-websocket-key must be 16 bytes in base64")) };
    // unlike the others, names of subprotocols are case-sensitive
    if !values(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == PROTOCOL) {
        return Err(bad("offer the subprotocol graphql-transport-ws in sec-websocket-protocol"));
    }
    Ok(key.to_owned())
}

fn bad(message: &'static str) -> HttpRefusal {
    HttpRefusal::new(RefusalKind::BadUpgrade, message)
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    values(headers, name).any(|value| value.eq_ignore_ascii_case(wanted))
}

/// The entries of a header that is a list.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
