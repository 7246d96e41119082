//! Sign-in at an issuer: OpenID Connect, authorization code with PKCE, against a small issuer that checks every step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use super::start_world;
use crate::support::browser::Browser;
use crate::support::tokens::{AUDIENCE, Issuer, base64};

const CLIENT: &str = "jobgate-page";

/// An issuer with the endpoints of a sign-in. Dropping it stops it.
struct LoginIssuer {
    url: String,
    keys: Arc<Issuer>,
    server: JoinHandle<()>,
}

impl LoginIssuer {
    #[expect(clippy::disallowed_methods, reason = "a task of the test, not of the gateway")]
    async fn start() -> Self {
        let keys = Arc::new(Issuer::start().await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (issuer, signer) = (url.clone(), Arc::clone(&keys));
        let server = tokio::spawn(async move {
            let codes = Mutex::default();
            while let Ok((socket, _)) = listener.accept().await {
                answer(socket, &issuer, &signer, &codes).await;
            }
        });
        Self { url, keys, server }
    }

    fn section(&self) -> String {
        format!(
            "jwt: [{{ issuer: \"{}\", audience: {AUDIENCE}, jwks: {{ url: \"{}\" }}, sources: [mind], login: {{ client_id: {CLIENT}, scopes: [openid] }} }}]\n",
            self.url, self.keys.url
        )
    }
}

impl Drop for LoginIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a code stands for: the challenge and the redirect URI of its request.
type Codes = Mutex<HashMap<String, (String, String)>>;

/// Answers one request.
async fn answer(mut socket: TcpStream, issuer: &str, keys: &Issuer, codes: &Codes) {
    let Some((line, body)) = read(&mut socket).await else { return };
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let url = Url::parse(issuer).unwrap().join(target).unwrap();
    let of_url: HashMap<String, String> = url.query_pairs().into_owned().collect();
    let reply = match (method, url.path()) {
        ("GET", "/.well-known/openid-configuration") => document(&json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
        })),
        ("GET", "/authorize") => authorize(&of_url, codes),
        ("POST", "/token") => token(&body, issuer, keys, codes),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
    };
    socket.write_all(reply.as_bytes()).await.ok();
}

/// The first line and the body of a request.
async fn read(socket: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok()).flatten()
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((head.lines().next()?.to_owned(), body.to_owned()));
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A person signs in at once.
fn authorize(query: &HashMap<String, String>, codes: &Codes) -> String {
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(
        ["response_type", "client_id", "scope", "code_challenge_method"].map(of),
        ["code", CLIENT, "openid", "S256"]
    );
    let code = format!("code{}", codes.lock().unwrap().len());
    let kept = (of("code_challenge").to_owned(), of("redirect_uri").to_owned());
    codes.lock().unwrap().insert(code.clone(), kept);
    let mut back = Url::parse(of("redirect_uri")).unwrap();
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", of("state"));
    format!("HTTP/1.1 302 Found\r\nlocation: {back}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// A code is redeemed once, with the verifier of its challenge.
fn token(body: &str, issuer: &str, keys: &Issuer, codes: &Codes) -> String {
    let sent: HashMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let of = |name: &str| sent.get(name).map(String::as_str).unwrap_or_default();
    let held = codes.lock().unwrap().remove(of("code"));
    let challenge = base64(digest(&SHA256, of("code_verifier").as_bytes()));
    let expected = (challenge, of("redirect_uri").to_owned());
    assert_eq!((held, of("grant_type"), of("client_id")), (Some(expected), "authorization_code", CLIENT));
    let claims = json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "ada", "name": "Ada Auditor",
        "exp": SystemClock.now().as_second() + 600,
    });
    document(&json!({ "access_token": keys.signed("k1", &claims), "token_type": "Bearer" }))
}

fn document(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\naccess-control-allow-origin: *\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn login(browser: Browser) {
    let issuer = LoginIssuer::start().await;
    let section = format!("{}{}", super::clients(), issuer.section());
    let rig = start_world(&section, Some(super::KEY)).await;
    let options = json!({ "url": format!("http://{}/", rig.public), "issuer": issuer.url });
    browser.run("login", &options, async |what, _| unreachable!("{what}")).await;
}

#[tokio::test]
async fn a_person_signs_in_at_an_issuer_in_chromium() {
    login(Browser::Chromium).await;
}

#[tokio::test]
async fn a_person_signs_in_at_an_issuer_in_firefox() {
    login(Browser::Firefox).await;
}
