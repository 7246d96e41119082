//! The routes of the public listener, in one table: patterns, methods, and the labels in traces, logs and metrics. The
//! router registers them; the layers read the route of a request from axum's [`MatchedPath`]. Only `/graphql`, whose patterns
//! have no parameter, is matched before the router.

use axum::extract::{MatchedPath, Request};

use crate::telemetry::meters::Handler;

/// Every method that a route allows, for the permission of a browser.
pub(in crate::inbound) const METHODS: &str = "GET, HEAD, POST";

/// The path in traces of a request without a route.
const REDACTED: &str = "/REDACTED";

/// A route of the public listener. A new variant does not compile until the table has a row for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound) enum Route {
    /// GraphQL, by every transport.
    Graphql,
    /// One job by REST.
    RestJob,
    /// The list of jobs by REST.
    RestJobs,
    /// Any other path of REST, where nothing is served.
    RestOther,
    /// The live page.
    Page,
    /// A script or the style of the live page.
    PageFile,
    /// The page of `GraphiQL`.
    Graphiql,
    /// A file of `GraphiQL`.
    GraphiqlFile,
}

/// What the table has about a route.
struct RouteRow {
    /// The pattern of the router.
    pattern: &'static str,
    /// A second pattern that is served in the same way.
    alias: Option<&'static str>,
    /// The allowed methods, as in the header `allow`; empty where nothing is served.
    allow: &'static str,
    /// `http.route` in traces; none where nothing is served.
    span: Option<&'static str>,
    /// The path in traces, with `REDACTED` in place of what the client writes.
    path: &'static str,
    /// The label in the access log.
    log: &'static str,
    /// The label in metrics.
    handler: Handler,
}

impl Route {
    /// Every route.
    pub(in crate::inbound) const ALL: [Self; 8] = [
        Self::Graphql,
        Self::RestJob,
        Self::RestJobs,
        Self::RestOther,
        Self::Page,
        Self::PageFile,
        Self::Graphiql,
        Self::GraphiqlFile,
    ];

    /// The whole table.
    const fn row(self) -> RouteRow {
        match self {
            Self::Graphql => RouteRow {
                pattern: "/graphql",
                // many clients add a trailing slash
                alias: Some("/graphql/"),
                allow: METHODS,
                span: Some("/graphql"),
                path: "/graphql",
                log: "/graphql",
                handler: Handler::Graphql,
            },
            Self::RestJob => RouteRow {
                pattern: "/v1/jobs/{source}/{external_id}",
                alias: None,
                allow: "GET, HEAD",
                span: Some("/v1/jobs/{source}/{externalId}"),
                path: "/v1/jobs/REDACTED/REDACTED",
                log: "/v1/jobs/{source}/{externalId}",
                handler: Handler::Rest,
            },
            Self::RestJobs => RouteRow {
                pattern: "/v1/jobs",
                alias: None,
                allow: "GET, HEAD",
                span: Some("/v1/jobs"),
                path: "/v1/jobs",
                log: "/v1/jobs",
                handler: Handler::Rest,
            },
            Self::RestOther => RouteRow {
                pattern: "/v1/{*rest}",
                alias: None,
                allow: "",
                span: None,
                path: REDACTED,
                log: "none",
                handler: Handler::Rest,
            },
            Self::Page => page("/", "/", "page", Handler::Page),
            Self::PageFile => page("/page/{file}", "/page/REDACTED", "page", Handler::Page),
            Self::Graphiql => page("/graphiql", "/graphiql", "graphiql", Handler::Graphiql),
            Self::GraphiqlFile => {
                page("/graphiql/{name}", "/graphiql/REDACTED", "graphiql", Handler::Graphiql)
            }
        }
    }

    /// The route of a request; none if no route matches.
    pub(in crate::inbound) fn of(request: &Request) -> Option<Self> {
        let matched = request.extensions().get::<MatchedPath>()?.as_str();
        Self::ALL.into_iter().find(|route| route.patterns().any(|pattern| pattern == matched))
    }

    /// Its patterns, for the router.
    pub(in crate::inbound) fn patterns(self) -> impl Iterator<Item = &'static str> {
        let row = self.row();
        [Some(row.pattern), row.alias].into_iter().flatten()
    }

    /// Its pattern, for the router.
    pub(in crate::inbound) const fn pattern(self) -> &'static str {
        self.row().pattern
    }

    /// Its `http.route` in traces, which has the pattern for the files of the page; none where nothing is served.
    pub(in crate::inbound) const fn span(self) -> Option<&'static str> {
        self.row().span
    }

    /// Its methods, for the header `allow`.
    pub(in crate::inbound) const fn allow(self) -> &'static str {
        self.row().allow
    }

    /// Its label in metrics.
    pub(in crate::inbound) const fn handler(self) -> Handler {
        self.row().handler
    }

    /// Whether it belongs to REST, whose errors are problem details.
    pub(in crate::inbound) const fn is_rest(self) -> bool {
        matches!(self.handler(), Handler::Rest)
    }

    /// Whether a request can read or change something: not a static file.
    pub(in crate::inbound) const fn is_api(self) -> bool {
        matches!(self.handler(), Handler::Graphql | Handler::Rest)
    }
}

/// A page that is compiled in or installed, or one of its files.
const fn page(pattern: &'static str, path: &'static str, log: &'static str, handler: Handler) -> RouteRow {
    RouteRow { pattern, alias: None, allow: "GET, HEAD", span: Some(pattern), path, log, handler }
}

/// The path of a request in traces, without what the client wrote.
pub(in crate::inbound) fn span_path(route: Option<Route>) -> &'static str {
    route.map_or(REDACTED, |route| route.row().path)
}

/// The label of a route in the access log.
pub(in crate::inbound) fn log_label(route: Option<Route>) -> &'static str {
    route.map_or("none", |route| route.row().log)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::{Next, from_fn};
    use axum::response::IntoResponse as _;
    use axum::routing::any;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn labels(path: &str) -> String {
        let routes = Route::ALL.into_iter().flat_map(Route::patterns);
        let routes = routes.fold(Router::new(), |routes, pattern| routes.route(pattern, any(async || "")));
        let layer = async |request: Request, _: Next| {
            let route = Route::of(&request);
            let span = route.and_then(Route::span).unwrap_or_default();
            format!("{span} {} {}", span_path(route), log_label(route)).into_response()
        };
        let app = routes.fallback(async || "").layer(from_fn(layer));
        let response = app.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn route_labels_never_contain_client_text() {
        for (path, expected) in [
            ("/graphql", "/graphql /graphql /graphql"),
            ("/graphql/", "/graphql /graphql /graphql"),
            ("/graphql//", " /REDACTED none"),
            (
                "/v1/jobs/mind/5f1c",
                "/v1/jobs/{source}/{externalId} /v1/jobs/REDACTED/REDACTED /v1/jobs/{source}/{externalId}",
            ),
            ("/v1/jobs?text=secret", "/v1/jobs /v1/jobs /v1/jobs"),
            ("/v1/jobs/", " /REDACTED none"),
            ("/v1/jobs/mind", " /REDACTED none"),
            ("/v1/jobs/mind/a/b", " /REDACTED none"),
            ("/v1/", " /REDACTED none"),
            ("/page/page.js", "/page/{file} /page/REDACTED page"),
            ("/page/a/b", " /REDACTED none"),
            ("/", "/ / page"),
            ("/graphiql", "/graphiql /graphiql graphiql"),
            ("/graphiql/secret", "/graphiql/{name} /graphiql/REDACTED graphiql"),
            ("/graphiql/a/b", " /REDACTED none"),
            ("/secret", " /REDACTED none"),
        ] {
            assert_eq!(labels(path).await, expected, "{path}");
        }
    }
}
