//! GraphiQL at `/graphiql`: an explorer that queries `/graphql` like any client. Its page is compiled in; its script, style
//! and workers are files that `graphiql/build.sh` makes from the npm package, given to it in memory when the gateway starts.
//! Not here: where the files are ([`crate::server`]).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::http::error::{HttpRefusal, RefusalKind};
use super::http::etag;
use super::http::route::Route;

/// Lets the explorer load its own files and connect to its own gateway, and nothing else; no other page may frame it. Its
/// editor sets styles in attributes, and has its fonts in its style.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; \
     font-src data:; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the explorer: name and media type. No other file is served. On disk each is compressed and ends in `.gz`.
pub const FILES: [(&str, &str); 5] = [
    ("graphiql.js", SCRIPT),
    ("graphiql.css", "text/css; charset=utf-8"),
    ("editor.worker.js", SCRIPT),
    ("graphql.worker.js", SCRIPT),
    ("json.worker.js", SCRIPT),
];

/// What is served at `/graphiql`.
#[derive(Clone, Debug, Default)]
pub enum Explorer {
    /// Nothing, because introspection is off and the explorer could show no schema.
    #[default]
    Off,
    /// A page that says how to get the files.
    Missing,
    /// The explorer.
    Installed(Arc<[ExplorerFile]>),
}

/// A file of the explorer, compressed.
#[derive(Debug)]
pub struct ExplorerFile {
    name: &'static str,
    media_type: &'static str,
    content: Bytes,
    etag: HeaderValue,
}

impl Explorer {
    /// The explorer with the files that `read` finds by their names, compressed by gzip.
    ///
    /// # Errors
    /// That of `read` for the first file that it does not find.
    pub fn installed<E>(read: impl Fn(&'static str) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let files = FILES.into_iter().map(|(name, media_type)| {
            let content = read(name)?;
            Ok(ExplorerFile { name, media_type, etag: etag::weak(&content), content: content.into() })
        });
        Ok(Self::Installed(files.collect::<Result<_, E>>()?))
    }

    /// Whether it can be used.
    pub const fn is_installed(&self) -> bool {
        matches!(self, Self::Installed(_))
    }
}

/// The routes of the explorer. No credential is required to load it; without one it shows nothing.
pub(super) fn router(explorer: Explorer) -> Router {
    Router::new()
        .route(Route::Graphiql.pattern(), get(page))
        .route(Route::GraphiqlFile.pattern(), get(file))
        .with_state(explorer)
}

async fn page(State(explorer): State<Explorer>) -> Response {
    let (status, html) = match explorer {
        Explorer::Off => return off(),
        Explorer::Missing => (StatusCode::NOT_FOUND, include_str!("graphiql/missing.html")),
        Explorer::Installed(_) => (StatusCode::OK, include_str!("graphiql/index.html")),
    };
    with_headers((status, html).into_response(), HTML)
}

async fn file(
    State(explorer): State<Explorer>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let found = match &explorer {
        Explorer::Off => return off(),
        Explorer::Missing => None,
        Explorer::Installed(files) => {
            files.iter().find(|file| name.as_ref().is_ok_and(|name| name.0 == file.name))
        }
    };
    let Some(file) = found else {
        return HttpRefusal::new(RefusalKind::NoSuchPath, "not found; GraphiQL has no such file")
            .into_response();
    };
    let mut response = if etag::is_known(&headers, &file.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if takes_gzip(&headers) {
        ([(header::CONTENT_ENCODING, "gzip")], file.content.clone()).into_response()
    } else {
        // the files are held once, compressed: every browser takes that
        let message = "this file is sent with content-encoding: gzip only; accept it";
        return HttpRefusal::new(RefusalKind::NotAcceptable, message).into_response();
    };
    response.headers_mut().insert(header::ETAG, file.etag.clone());
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    with_headers(response, file.media_type)
}

fn off() -> Response {
    let message =
        "not found; GraphiQL needs introspection, which is disabled: set graphql.introspection to on";
    HttpRefusal::new(RefusalKind::NoSuchPath, message).into_response()
}

fn with_headers(mut response: Response, media_type: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    // a new version of the gateway brings a new explorer
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether an answer may be compressed by gzip (RFC 9110): it is named or covered by `*` and not excluded by `q=0`, or the
/// request says nothing about encodings.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut lists = headers.get_all(header::ACCEPT_ENCODING).iter().peekable();
    if lists.peek().is_none() {
        return true;
    }
    let lists = lists.filter_map(|list| list.to_str().ok());
    let (mut named, mut any) = (None, false);
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let quality =
            parameters.trim().strip_prefix("q=").map_or(Ok(1.0), |quality| quality.trim().parse::<f32>());
        let accepted = quality.is_ok_and(|quality| quality > 0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => named = Some(accepted),
            "*" => any = accepted,
            _ => {}
        }
    }
    named.unwrap_or(any)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    fn installed() -> Explorer {
        Explorer::installed(|name| Ok::<_, ()>(name.as_bytes().to_vec())).unwrap()
    }

    async fn request(
        explorer: Explorer,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (u16, HeaderMap, String) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router(explorer).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn page_is_served_with_a_policy_of_its_own() {
        let (status, headers, body) = request(installed(), "/graphiql", &[]).await;
        assert_eq!(status, 200);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], POLICY);
        for (name, _) in FILES.iter().filter(|(name, _)| !name.contains("worker")) {
            assert!(body.contains(&format!("\"graphiql/{name}\"")), "{name}");
        }
        assert!(!body.contains("://"), "the page names another host");
    }

    #[tokio::test]
    async fn page_without_files_names_the_command() {
        let (status, headers, body) = request(Explorer::Missing, "/graphiql", &[]).await;
        assert_eq!((status, &headers[header::CONTENT_TYPE]), (404, &HeaderValue::from_static(HTML)));
        assert!(body.contains("bash graphiql/build.sh"), "{body}");
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("graphiql/build.sh");
        assert!(script.exists(), "the page names a script that is not there");
        assert_eq!(request(Explorer::Missing, "/graphiql/graphiql.js", &[]).await.0, 404);
    }

    #[tokio::test]
    async fn nothing_is_served_without_introspection() {
        for path in ["/graphiql", "/graphiql/graphiql.js"] {
            let (status, _, body) = request(Explorer::Off, path, &[]).await;
            assert_eq!(status, 404, "{path}");
            assert!(body.contains("graphql.introspection"), "{body}");
        }
    }

    #[tokio::test]
    async fn only_listed_files_are_served() {
        for (name, media_type) in FILES {
            let (status, headers, body) = request(installed(), &format!("/graphiql/{name}"), &[]).await;
            assert_eq!((status, body.as_str()), (200, name));
            assert_eq!(headers[header::CONTENT_TYPE], media_type);
            assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
            assert_eq!(headers[header::CONTENT_SECURITY_POLICY], POLICY);
        }
        for path in [
            "/graphiql/",
            "/graphiql/index.html",
            "/graphiql/graphiql.js.gz",
            "/graphiql/../graphiql.js",
            "/graphiql/..%2Fgraphiql.js",
            "/graphiql/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "/graphiql/%ff",
            "/graphiql/%00",
        ] {
            assert_eq!(request(installed(), path, &[]).await.0, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn known_file_is_not_sent_again() {
        let (_, headers, _) = request(installed(), "/graphiql/graphiql.css", &[]).await;
        let etag = headers[header::ETAG].to_str().unwrap();
        let (status, _, body) =
            request(installed(), "/graphiql/graphiql.css", &[("if-none-match", etag)]).await;
        assert_eq!((status, body.as_str()), (304, ""));
        let (other, ..) = request(installed(), "/graphiql/graphiql.js", &[("if-none-match", etag)]).await;
        assert_eq!(other, 200);
    }

    #[tokio::test]
    async fn files_are_sent_only_where_gzip_is_accepted() {
        for (sent, status) in [
            ("gzip, deflate, br", 200),
            ("br;q=1.0, GZIP;q=0.1", 200),
            ("*", 200),
            ("x-gzip", 200),
            ("gzip;q=0", 406),
            ("gzip;q=0, *", 406),
            ("*;q=0", 406),
            ("gzip;q=x", 406),
            ("br", 406),
            ("identity", 406),
            ("", 406),
        ] {
            let answer = request(installed(), "/graphiql/graphiql.js", &[("accept-encoding", sent)]).await;
            assert_eq!(answer.0, status, "{sent}");
        }
    }
}
