//! The metrics of requests: each is counted with its response, by the handler of its route.

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use tokio::time::Instant;

use super::route::Route;
use crate::telemetry::meters::{self, Handler};

/// What is counted about a request, from its start on.
pub(super) struct RequestTimer {
    began: Instant,
    handler: Handler,
    method: Method,
}

impl RequestTimer {
    /// Starts with the request.
    pub(super) fn start(route: Option<Route>, request: &Request) -> Self {
        let handler = route.map_or(Handler::Nothing, Route::handler);
        Self { began: Instant::now(), handler, method: request.method().clone() }
    }

    /// When the request started.
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// The method of the request.
    pub(super) const fn method(&self) -> &Method {
        &self.method
    }

    /// Counts the request with its response.
    pub(super) fn count(self, response: &Response) {
        let Self { began, handler, method } = self;
        meters::request(handler, method.as_str(), response.status().as_u16(), began.elapsed());
    }
}
