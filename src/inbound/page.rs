//! The live page at `/`: static files, compiled in. It contains no data and queries `/graphql` like any client.
//! Not here: anything that a program calls.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

use super::http::route::Route;

/// Lets the page load its own files and connect to its own gateway, and nothing else; no other page may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page itself.
const INDEX: &str = include_str!("page/index.html");

/// The files that the page loads: name, media type, content.
const FILES: [(&str, &str, &str); 16] = [
    ("address.js", SCRIPT, include_str!("page/address.js")),
    ("clock.js", SCRIPT, include_str!("page/clock.js")),
    ("details.js", SCRIPT, include_str!("page/details.js")),
    ("documents.js", SCRIPT, include_str!("page/documents.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("filters.js", SCRIPT, include_str!("page/filters.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("identity.js", SCRIPT, include_str!("page/identity.js")),
    ("jobs.js", SCRIPT, include_str!("page/jobs.js")),
    ("page.css", STYLE, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("row.js", SCRIPT, include_str!("page/row.js")),
    ("snippets.js", SCRIPT, include_str!("page/snippets.js")),
    ("socket.js", SCRIPT, include_str!("page/socket.js")),
    ("sources.js", SCRIPT, include_str!("page/sources.js")),
    ("table.js", SCRIPT, include_str!("page/table.js")),
];

/// The routes of the page. No credential is required to load them; without one they show nothing.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(Route::Page.pattern(), get(|| std::future::ready(file(HTML, INDEX))))
        .route(Route::PageFile.pattern(), get(async |Path(name): Path<String>| named(&name)))
}

/// A file by its name; 404 without a body for any other name.
fn named(name: &str) -> Response {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    found.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |(_, media_type, content)| file(media_type, content),
    )
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
