//! One log line a request, when its response has ended: the route and operation, the outcome, the size and the
//! duration. Never the path or the query as received: those contain ids, and arbitrary client input.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http::{Method, StatusCode};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::request_facts::RequestFacts;
use super::request_metrics::RequestTimer;
use super::route::{self, Route};
use crate::config::AccessLog;
use crate::domain::principal::Principal;
use crate::telemetry::log::{ACCESS, RequestScope};
use crate::telemetry::trace::{RequestTrace, TraceContext};

/// The status of a request whose client disconnected before there was a response: only for logs, never sent.
const LEFT: u16 = 499;

/// The log of one request: which of its facts are needed is known when its response is.
pub(super) struct AccessLogRequest<'a> {
    pub(super) which: AccessLog,
    pub(super) timer: &'a RequestTimer,
    pub(super) route: Option<Route>,
    pub(super) scope: &'a RequestScope,
    pub(super) trace: &'a RequestTrace,
    pub(super) facts: &'a RequestFacts,
}

impl AccessLogRequest<'_> {
    /// Begins the line of a request, if each is logged. The line is written when it is dropped: also if the client
    /// disconnects before there is a response.
    pub(super) fn begin(&self) -> Option<AccessLogGuard> {
        (self.which == AccessLog::All).then(|| self.line())
    }

    /// Adds the response to the line, which begins now if only failures are logged. It is written when the body has ended.
    pub(super) fn answered(&self, begun: Option<AccessLogGuard>, response: Response) -> Response {
        let failed = || self.which == AccessLog::Errors && response.status().is_server_error();
        match begun.or_else(|| failed().then(|| self.line())) {
            Some(line) => line.around(response),
            None => response,
        }
    }

    fn line(&self) -> AccessLogGuard {
        let line = AccessLogLine {
            which: self.which,
            begun: self.timer.began(),
            method: method(self.timer.method()),
            route: route::log_label(self.route),
            status: StatusCode::from_u16(LEFT).unwrap_or_default(),
            bytes: 0,
            complete: false,
            scope: self.scope.clone(),
            trace: self.trace.in_scope(TraceContext::here),
            facts: self.facts.clone(),
        };
        AccessLogGuard(Box::new(line))
    }
}

/// The method from a closed list: a client may send others.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// The facts of a request so far.
struct AccessLogLine {
    which: AccessLog,
    begun: Instant,
    method: &'static str,
    route: &'static str,
    status: StatusCode,
    bytes: u64,
    /// Whether the whole response was sent.
    complete: bool,
    scope: RequestScope,
    trace: TraceContext,
    facts: RequestFacts,
}

/// Writes its line when it is dropped.
pub(super) struct AccessLogGuard(Box<AccessLogLine>);

impl AccessLogGuard {
    fn around(mut self, response: Response) -> Response {
        self.0.status = response.status();
        let head = self.0.method == "HEAD";
        response.map(|body| {
            self.0.complete = head || body.is_end_stream();
            Body::new(CountedBody { body, guard: self })
        })
    }
}

impl Drop for AccessLogGuard {
    fn drop(&mut self) {
        let AccessLogLine { which, begun, method, route, status, bytes, complete, scope, trace, facts } =
            &*self.0;
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (client, operation) = (facts.client(), facts.operation());
        let client = client.as_ref().map(Principal::name);
        let (status, whole) = (status.as_u16(), complete);
        // the body may end anywhere: the line belongs to its request all the same
        let _entered = trace.enter();
        scope.within(|| {
            if *which == AccessLog::All {
                tracing::info!(
                    target: ACCESS,
                    method, route, status, bytes, whole, duration_ms, client, operation, "request served"
                );
            } else {
                tracing::warn!(
                    method,
                    route,
                    status,
                    bytes,
                    whole,
                    duration_ms,
                    client,
                    operation,
                    "request failed"
                );
            }
        });
    }
}

/// A body that counts its bytes and records its end.
struct CountedBody {
    body: Body,
    guard: AccessLogGuard,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let line = &mut this.guard.0;
        match &frame {
            Some(Ok(frame)) => {
                line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                line.complete = this.body.is_end_stream();
            }
            Some(Err(_)) => {}
            None => line.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_log_replaces_unknown_methods() {
        assert_eq!(method(&Method::from_bytes(b"CANARY").unwrap()), "other");
        assert_eq!(method(&Method::GET), "GET");
    }
}
