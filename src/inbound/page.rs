//! The live page at `/`: static files, compiled in. It contains no data and queries `/graphql` like any client.
//! Not here: anything that a program calls.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::http::error::{HttpRefusal, RefusalKind};
use super::http::route::Route;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// The document with what the page needs to know of this gateway before anybody has signed in.
const SETTINGS: &str = "settings.json";

/// The page itself.
const INDEX: &str = include_str!("page/index.html");

/// The files that the page loads: name, media type, content.
const FILES: [(&str, &str, &str); 17] = [
    ("address.js", SCRIPT, include_str!("page/address.js")),
    ("clock.js", SCRIPT, include_str!("page/clock.js")),
    ("details.js", SCRIPT, include_str!("page/details.js")),
    ("documents.js", SCRIPT, include_str!("page/documents.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("filters.js", SCRIPT, include_str!("page/filters.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("identity.js", SCRIPT, include_str!("page/identity.js")),
    ("jobs.js", SCRIPT, include_str!("page/jobs.js")),
    ("login.js", SCRIPT, include_str!("page/login.js")),
    ("page.css", STYLE, include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("row.js", SCRIPT, include_str!("page/row.js")),
    ("snippets.js", SCRIPT, include_str!("page/snippets.js")),
    ("socket.js", SCRIPT, include_str!("page/socket.js")),
    ("sources.js", SCRIPT, include_str!("page/sources.js")),
    ("table.js", SCRIPT, include_str!("page/table.js")),
];

/// An issuer at which people sign in on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageLogin {
    /// Its identifier, a URL: the page reads its endpoints below it.
    pub issuer: String,
    /// The origin of that URL, to which the page may connect.
    pub origin: String,
    /// The public client that the page is there.
    pub client_id: String,
    /// The requested scopes, separated by blanks.
    pub scopes: String,
}

/// What the page depends on beside its files; a reload can change it. A clone is cheap and shares it.
#[derive(Clone, Debug)]
pub struct PageSettings {
    has_explorer: bool,
    content: Arc<ArcSwap<PageContent>>,
}

/// What follows from the issuers.
#[derive(Debug)]
struct PageContent {
    policy: HeaderValue,
    settings: Bytes,
}

impl PageSettings {
    /// The settings with these issuers. `has_explorer`: whether the page links to GraphiQL.
    pub fn new(has_explorer: bool, logins: &[PageLogin]) -> Self {
        let content = PageContent::new(has_explorer, logins);
        Self { has_explorer, content: Arc::new(ArcSwap::from_pointee(content)) }
    }

    /// Applies other issuers.
    pub fn put(&self, logins: &[PageLogin]) {
        self.content.store(Arc::new(PageContent::new(self.has_explorer, logins)));
    }
}

impl Default for PageSettings {
    fn default() -> Self {
        Self::new(false, &[])
    }
}

impl PageContent {
    /// The policy lets the page load its own files and connect to its own gateway and to the issuers at which people sign
    /// in, and nothing else; no other page may frame it.
    fn new(has_explorer: bool, logins: &[PageLogin]) -> Self {
        let origins: String = logins.iter().flat_map(|login| [" ", login.origin.as_str()]).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{origins}; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).unwrap_or_else(|_| unreachable!("an origin is ASCII"));
        let of = |login: &PageLogin| -> Value {
            let PageLogin { issuer, client_id, scopes, .. } = login;
            json!({ "issuer": issuer, "clientId": client_id, "scopes": scopes })
        };
        let logins: Vec<Value> = logins.iter().map(of).collect();
        let settings = json!({ "explorer": has_explorer, "logins": logins });
        Self { policy, settings: settings.to_string().into() }
    }
}

/// The routes of the page. No credential is required to load them; without one they show nothing.
pub(super) fn router(settings: PageSettings) -> Router {
    Router::new()
        .route(Route::Page.pattern(), get(index))
        .route(Route::PageFile.pattern(), get(named))
        .with_state(settings)
}

async fn index(State(settings): State<PageSettings>) -> Response {
    file(&settings, HTML, Bytes::from_static(INDEX.as_bytes()))
}

async fn named(State(settings): State<PageSettings>, name: Result<Path<String>, PathRejection>) -> Response {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    if name == SETTINGS {
        let content = settings.content.load().settings.clone();
        return file(&settings, JSON, content);
    }
    let Some((_, media_type, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return HttpRefusal::new(RefusalKind::NoSuchPath, "not found; the live page has no such file")
            .into_response();
    };
    file(&settings, media_type, Bytes::from_static(content.as_bytes()))
}

fn file(settings: &PageSettings, media_type: &'static str, content: Bytes) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, settings.content.load().policy.clone());
    // a new version of the gateway brings a new page
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::extract::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn policy_and_body(settings: &PageSettings, path: &str) -> (u16, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(settings.clone()).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let policy = head.headers.get(header::CONTENT_SECURITY_POLICY).map(|value| value.to_str().unwrap());
        (
            head.status.as_u16(),
            policy.unwrap_or_default().to_owned(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn page_connects_to_an_issuer_only_while_it_is_configured() {
        let login = PageLogin {
            issuer: "https://login.example/realm".to_owned(),
            origin: "https://login.example".to_owned(),
            client_id: "page".to_owned(),
            scopes: "openid email".to_owned(),
        };
        let settings = PageSettings::new(true, &[]);
        let (_, policy, _) = policy_and_body(&settings, "/").await;
        assert!(policy.contains("connect-src 'self';") && !policy.contains("://"), "{policy}");
        settings.put(&[login]);
        let (_, policy, _) = policy_and_body(&settings, "/").await;
        assert!(policy.contains("connect-src 'self' https://login.example;"), "{policy}");
        let (status, _, body) = policy_and_body(&settings, "/page/settings.json").await;
        let logins =
            r#"[{"issuer":"https://login.example/realm","clientId":"page","scopes":"openid email"}]"#;
        assert_eq!((status, body), (200, format!(r#"{{"explorer":true,"logins":{logins}}}"#)));
    }

    #[tokio::test]
    async fn every_file_that_the_page_imports_is_served() {
        let settings = PageSettings::default();
        let mut seen = BTreeSet::from(["page.css".to_owned(), "page.js".to_owned()]);
        let mut unread: Vec<String> = seen.iter().cloned().collect();
        while let Some(name) = unread.pop() {
            let (status, _, body) = policy_and_body(&settings, &format!("/page/{name}")).await;
            assert_eq!(status, 200, "{name}");
            for line in body.lines() {
                let import = line.split_once(" from './").and_then(|(_, rest)| rest.split_once('\''));
                let new = import.map(|(name, _)| name.to_owned()).filter(|name| seen.insert(name.clone()));
                unread.extend(new);
            }
        }
        assert_eq!(seen.len(), FILES.len(), "a file is imported by none: {seen:?}");
        for path in ["/page/none.js", "/page/%ff"] {
            assert_eq!(policy_and_body(&settings, path).await.0, 404, "{path}");
        }
    }
}
