//! The span of a request: a child of the trace context in its headers, until its response starts. A stream that
//! continues has no span.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use crate::telemetry::trace;

/// The layer that creates it.
pub(in crate::inbound) async fn request(request: Request, next: Next) -> Response {
    if !trace::is_on() {
        return next.run(request).await;
    }
    let span = trace::request(request.headers(), request.method(), route(request.uri().path()));
    let response = span.context().hold(Box::pin(next.run(request))).await;
    span.answered(response.status());
    response
}

/// The route of a path, if there is one. A path itself contains ids and arbitrary client input.
pub(in crate::inbound) fn route(path: &str) -> Option<&'static str> {
    match path {
        "/" => return Some("/"),
        "/graphql" | "/graphql/" => return Some("/graphql"),
        "/page.js" => return Some("/page.js"),
        "/page.css" => return Some("/page.css"),
        "/socket.js" => return Some("/socket.js"),
        _ => {}
    }
    let rest = path.strip_prefix("/v1/")?;
    let mut parts = rest.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("jobs"), Some(_), Some(_), None) => Some("/v1/jobs/{source}/{external_id}"),
        _ => Some("/v1/{*rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::route;

    #[test]
    fn span_route_never_contains_client_text() {
        for (path, expected) in [
            ("/graphql", Some("/graphql")),
            ("/v1/jobs/mind/5f1c", Some("/v1/jobs/{source}/{external_id}")),
            ("/v1/jobs/mind", Some("/v1/{*rest}")),
            ("/v1/jobs/mind/a/b", Some("/v1/{*rest}")),
            ("/v1/", Some("/v1/{*rest}")),
            ("/graphql/", Some("/graphql")),
            ("/graphql//", None),
            ("/secret", None),
            ("", None),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }
}
