//! The HTTP client of the upstreams and its only send.
//!
//! It sends an [`UpstreamCall`]; the credential is added last, after the URL has been recorded. It returns an
//! [`UpstreamReply`] with a bounded body, or a [`SendError`]; a `reqwest::Error` is never returned, because it prints
//! the whole URL (`docs/adr/0005-one-upstream-http-client.md`). Not here: budgets, retries, the interpretation of a
//! response.

mod body;
mod call;
mod clients;
mod egress;
mod fetch;
mod mask;
mod reply;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Request, Response, StatusCode};
use secrecy::ExposeSecret as _;
use url::Url;

use self::body::{CollectedBody, collect, readable};
pub use self::call::{BaseUrl, BaseUrlError, CallQuery, UpstreamCall};
pub use self::clients::HttpClients;
use self::egress::ReadyClient;
pub use self::egress::{Egress, EgressError};
pub use self::mask::SecretMask;
pub use self::reply::UpstreamReply;
use crate::config::{Environment, EnvironmentProxies};
use crate::ports::credentials::Credential;

/// How long a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection is kept, below the common limit of load balancers (60 s).
const IDLE: Duration = Duration::from_secs(45);

/// What the status 407 of a proxy means.
const PROXY_REFUSES: &str =
    "the proxy refuses the credential (407): put the user:password that it takes into proxy_credential";

/// The client could not be built: the TLS configuration of this machine is broken.
#[derive(Debug, thiserror::Error)]
#[error("the http client could not be built: {0}")]
pub struct HttpClientError(String);

/// Why there is no complete response. Never contains a URL or a secret.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: DNS or network, or it took longer than [`CONNECT_TIMEOUT`].
    #[error("could not connect")]
    Connect(#[source] RedactedError),
    /// No connection, because of TLS: most often a certificate that is not trusted here.
    #[error("could not connect, because of TLS")]
    Tls(#[source] RedactedError),
    /// Headers and body were not complete within the call's timeout.
    #[error("no complete answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The decoded body is larger than the call's cap; reading stopped there.
    #[error("the decoded body is larger than {cap} bytes")]
    TooLarge {
        /// The cap.
        cap: usize,
        /// The response with the head of its body, at most as long as the cap.
        head: Box<UpstreamReply>,
    },
    /// The connection broke, the body was cut short, or its encoding is invalid.
    #[error("the answer broke off")]
    Broken(#[source] RedactedError),
    /// Nothing was sent: this call cannot carry the credential.
    #[error("the credential cannot be sent: {0}")]
    Unsendable(&'static str),
    /// Nothing was sent: the files of the proxy and TLS configuration cannot be used.
    #[error("no call can leave")]
    Egress(#[source] EgressError),
    /// Nothing was sent: a path segment would not stay one segment.
    #[error("a path segment would leave its place in the url")]
    Path,
}

impl SendError {
    /// A label from a closed list.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "connect",
            Self::TimedOut(_) => "timed_out",
            Self::TooLarge { .. } => "too_large",
            Self::Broken(_) => "incomplete_response",
            Self::Egress(_) => "egress_error",
            Self::Unsendable(_) | Self::Path => "invalid_request",
        }
    }

    /// The error and its sources, as one line.
    pub(in crate::outbound) fn full_text(&self) -> String {
        chain(self)
    }
}

/// The chain of an underlying error, as text without the URL and without the secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RedactedError(String);

/// The client for calls with the same proxy and TLS configuration (see [`Egress`]). Connections are pooled by host.
pub struct UpstreamHttpClient {
    egress: Egress,
    env: Arc<Environment>,
    current: ArcSwap<Result<ReadyClient, EgressError>>,
    /// A digest of the files that the client was built from.
    seen: Mutex<Option<[u8; 32]>>,
}

/// The common configuration of every client of this process. No redirects, no referer, no proxy that is not configured,
/// no hidden retries; HTTP/1.1. The caller adds the trusted roots.
///
/// Installs the process's TLS crypto provider if none is installed yet.
#[expect(clippy::disallowed_methods, reason = "clients are built only here")]
fn without_roots() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // losing the race to another thread is fine: a provider is installed then
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }
    Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
}

/// The compiled-in Mozilla roots, so that TLS also works on a machine without a certificate store.
fn compiled_in_roots() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok())
}

/// A client without a proxy that trusts the machine's roots and the compiled-in ones.
pub(super) fn strict_client() -> ClientBuilder {
    without_roots().tls_certs_merge(compiled_in_roots())
}

impl UpstreamHttpClient {
    /// Builds a client without a proxy.
    ///
    /// No redirects and no referer, since both can carry a key to another host; no cookies and no retries of its own.
    /// Certificates are checked against the machine's store and the compiled-in Mozilla roots, so that it also works
    /// where no store exists. Installs the process's TLS crypto provider if none is installed yet.
    ///
    /// # Errors
    /// Returns an error if TLS cannot be set up on this machine.
    pub fn new() -> Result<Self, HttpClientError> {
        Self::open(Egress::direct(), Arc::default()).usable()
    }

    /// Builds a client for calls to a URL, through the proxy that the environment configures for it.
    ///
    /// # Errors
    /// Returns an error if TLS cannot be set up on this machine, or the environment names an invalid proxy.
    pub fn to(url: &Url, env: &Environment) -> Result<Self, HttpClientError> {
        let egress = Egress::by_environment(url, &EnvironmentProxies::read(env));
        Self::open(egress, Arc::new(env.clone())).usable()
    }

    /// Builds a client, or keeps the reason why it cannot be built yet. Blocks on the disk.
    fn open(egress: Egress, env: Arc<Environment>) -> Self {
        let (seen, current) = Self::read(&egress, &env);
        Self { egress, env, current: ArcSwap::from_pointee(current), seen: Mutex::new(seen) }
    }

    fn read(egress: &Egress, env: &Environment) -> (Option<[u8; 32]>, Result<ReadyClient, EgressError>) {
        match egress.read(env) {
            Ok(material) => (Some(material.digest), egress.client(&material)),
            Err(error) => (None, Err(error)),
        }
    }

    fn usable(self) -> Result<Self, HttpClientError> {
        match self.fault() {
            None => Ok(self),
            Some(fault) => Err(HttpClientError(fault.to_string())),
        }
    }

    /// The proxy and TLS configuration of the calls.
    pub(super) const fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Why no call can be sent, if none can.
    pub fn fault(&self) -> Option<EgressError> {
        self.current.load().as_ref().as_ref().err().cloned()
    }

    /// Reads the files again. Valid changes apply to new connections; invalid ones are ignored. Returns whether
    /// something changed. Blocks on the disk.
    ///
    /// # Errors
    /// Returns an error if the current files cannot be used.
    fn refresh(&self) -> Result<bool, EgressError> {
        let material = self.egress.read(&self.env)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == Some(material.digest) && self.fault().is_none() {
            return Ok(false);
        }
        let ready = self.egress.client(&material)?;
        *seen = Some(material.digest);
        self.current.store(Arc::new(Ok(ready)));
        Ok(true)
    }

    /// Sends a call and reads its whole response, within `timeout` for everything from the connection to the last byte.
    ///
    /// Any HTTP status is an [`UpstreamReply`]. The secrets in `mask` are removed from everything that the upstream
    /// returns, in case it echoes them, and from the logged URL, in case an id contains them; `mask` should include the
    /// credential itself. Dropping the future closes the connection.
    ///
    /// # Errors
    /// Returns an error if there is no complete response, or nothing could be sent.
    pub async fn send(
        &self,
        call: &UpstreamCall,
        timeout: Duration,
        credential: &Credential,
        mask: &SecretMask,
    ) -> Result<UpstreamReply, SendError> {
        self.send_in_trace(call, timeout, credential, mask, None).await
    }

    /// Sends like [`UpstreamHttpClient::send`], and adds a `traceparent` header with the trace of the call.
    ///
    /// # Errors
    /// The same as for [`UpstreamHttpClient::send`].
    pub async fn send_in_trace(
        &self,
        call: &UpstreamCall,
        timeout: Duration,
        credential: &Credential,
        mask: &SecretMask,
        traceparent: Option<HeaderValue>,
    ) -> Result<UpstreamReply, SendError> {
        let current = self.current.load_full();
        let ready = current.as_ref().as_ref().map_err(|fault| SendError::Egress(fault.clone()))?;
        let mask = &mask.and(&ready.mask);
        let mut request = request(call)?;
        if let Some(traceparent) = traceparent {
            request.headers_mut().insert("traceparent", traceparent);
        }
        tracing::debug!(
            http.request.method = %request.method(),
            url.full = %mask.text(request.url().to_string()),
            "sending a request"
        );
        sign(&mut request, call, credential)?;
        let masked = |error: reqwest::Error| convert(error, mask);
        let exchange = async {
            #[expect(clippy::disallowed_methods, reason = "the only send")]
            let response = ready.client.execute(request).await.map_err(masked)?;
            refused_by_proxy(ready, &response)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = collect(response, call.max_body, masked).await?;
            reply(status, &headers, body, call.max_body, mask)
        };
        let answer =
            tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(SendError::TimedOut(timeout)));
        match &answer {
            Ok(reply) => tracing::debug!(
                http.response.status_code = reply.status.as_u16(),
                http.response.body.size = reply.body.len(),
                "received a response"
            ),
            Err(error) => tracing::debug!(error = %chain(error), "received no response"),
        }
        answer
    }
}

/// The request without its credential: all of it may be logged.
fn request(call: &UpstreamCall) -> Result<Request, SendError> {
    let mut request = Request::new(call.method.clone(), call.url().ok_or(SendError::Path)?);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(body) = &call.body {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
    }
    Ok(request)
}

/// Adds the credential as the last step: after that the request must not be printed.
fn sign(request: &mut Request, call: &UpstreamCall, credential: &Credential) -> Result<(), SendError> {
    match credential {
        Credential::Bearer(token) => {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| SendError::Unsendable("it holds a character that a header cannot carry"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Credential::ApiKey(key) => {
            let url = call
                .url_with_key(key.expose_secret())
                .ok_or(SendError::Unsendable("this upstream takes a bearer token, not an api key"))?;
            *request.url_mut() = url;
        }
    }
    Ok(())
}

/// The response; an error with its head if the body exceeds the cap.
fn reply(
    status: StatusCode,
    headers: &HeaderMap,
    body: CollectedBody,
    cap: usize,
    mask: &SecretMask,
) -> Result<UpstreamReply, SendError> {
    let text = readable(body.bytes, cap);
    let whole = body.complete && text.is_some();
    let reply = UpstreamReply::new(status, headers, text.unwrap_or_default(), mask);
    if whole { Ok(reply) } else { Err(SendError::TooLarge { cap, head: Box::new(reply) }) }
}

/// Returns an error if the proxy and not the upstream responded: outside of a tunnel only a proxy sends 407.
fn refused_by_proxy(ready: &ReadyClient, response: &Response) -> Result<(), SendError> {
    let refused = response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    if ready.proxied && refused && response.url().scheme() == "http" {
        return Err(SendError::Connect(RedactedError(PROXY_REFUSES.to_owned())));
    }
    Ok(())
}

/// The one place where an error of the HTTP client is converted.
fn convert(error: reqwest::Error, mask: &SecretMask) -> SendError {
    let (connect, tls) = (error.is_connect(), is_tls(&error));
    let stripped = RedactedError(explained(mask.text(chain(&error.without_url()))));
    match (connect, tls) {
        (true, true) => SendError::Tls(stripped),
        (true, false) => SendError::Connect(stripped),
        (false, _) => SendError::Broken(stripped),
    }
}

/// Returns whether TLS is the root cause of an error.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let mut below = Some(error);
    while let Some(error) = below {
        if error.is::<rustls::Error>() {
            return true;
        }
        // an I/O error does not return what it wraps as its source
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        below = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped as _));
    }
    false
}

/// The text of the HTTP client, preceded by an instruction where there is one.
fn explained(text: String) -> String {
    let known = [
        ("proxy authorization required", PROXY_REFUSES),
        ("tunnel error: unsuccessful", "the proxy opens no tunnel to the upstream"),
        ("tunnel error: failed to create", "the proxy cannot be reached"),
        ("tunnel error: unexpected end of file", "the proxy closed the connection without an answer"),
        ("CertificateRequired", "the upstream requires a client certificate: set client_cert and client_key"),
        // TLS 1.3 checks the certificate after the handshake, and the client drops the alert when it arrives before the
        // request is sent
        (
            "operation was canceled",
            "the upstream closed the connection before the request was sent; if it requires a client certificate, check client_cert and client_key",
        ),
    ];
    let found = known.iter().find(|(part, _)| text.contains(part));
    match found {
        Some((_, ours)) => format!("{ours}: {text}"),
        None => text,
    }
}

impl fmt::Debug for UpstreamHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamHttpClient").field("egress", &self.egress).finish_non_exhaustive()
    }
}

/// An error and its sources, as one line.
pub(in crate::outbound) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text.push_str(": ");
        text.push_str(&error.to_string());
        below = error.source();
    }
    text
}
