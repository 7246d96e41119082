//! An issuer of signed tokens, and a server that publishes its keys and counts the requests for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The `iss` and `aud` of its tokens.
pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "jobgate";

/// An issuer with one key, which signs with ES256. Dropping it stops the server of its keys.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    fetches: Arc<AtomicUsize>,
    pub(crate) url: String,
    server: JoinHandle<()>,
}

impl Issuer {
    /// Makes a key and publishes it.
    pub(crate) async fn start() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": base64(x), "y": base64(y) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let fetches = Arc::<AtomicUsize>::default();
        let server = serve(listener, json!({ "keys": [jwk] }).to_string(), Arc::clone(&fetches));
        Self { key, fetches, url, server }
    }

    /// How often its keys were fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// The section of the configuration that accepts its tokens.
    pub(crate) fn section(&self, sources: &str) -> String {
        format!(
            "jwt: [{{ issuer: \"{ISSUER}\", audience: {AUDIENCE}, jwks: {{ url: \"{}\" }}, sources: {sources} }}]",
            self.url
        )
    }

    /// A token of a client, valid until so many seconds after 1970.
    pub(crate) fn token(&self, client: &str, exp: i64) -> String {
        self.signed("k1", &json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": client, "exp": exp }))
    }

    /// A token with this key id and these claims.
    pub(crate) fn signed(&self, kid: &str, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": kid }).to_string();
        let message = format!("{}.{}", base64(header), base64(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", base64(signature))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Base64url without padding.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[expect(clippy::disallowed_methods, reason = "a task of the test, not of the gateway")]
fn serve(listener: TcpListener, body: String, fetches: Arc<AtomicUsize>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                fetches.fetch_add(1, Ordering::SeqCst);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                socket.write_all(answer.as_bytes()).await.ok();
            }
        }
    })
}
