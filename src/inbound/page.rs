//! The live page at `/`: three static files, compiled in. It contains no data and queries `/graphql` like any client.
//! Not here: anything that a program calls.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, header};

use super::http::route::Route;

/// Lets the page load its own files and connect to its own gateway, and nothing else; no other page may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The files of the page: route, media type, content.
const FILES: [(Route, &str, &str); 4] = [
    (Route::Page, "text/html; charset=utf-8", include_str!("page/index.html")),
    (Route::PageStyle, "text/css; charset=utf-8", include_str!("page/page.css")),
    (Route::PageScript, "text/javascript; charset=utf-8", include_str!("page/page.js")),
    (Route::PageSocket, "text/javascript; charset=utf-8", include_str!("page/socket.js")),
];

/// The routes of the page. No credential is required to load them; without one they show nothing.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |routes, (route, media_type, content)| {
        routes.route(route.pattern(), get(move || std::future::ready(file(media_type, content))))
    })
}

fn file(media_type: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    // a new version of the gateway brings a new page
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
