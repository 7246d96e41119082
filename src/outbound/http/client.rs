//! The HTTP client and its only send.
//!
//! It sends an [`UpstreamCall`]; the credential is added last, after the URL has been recorded. It returns an
//! [`UpstreamReply`] with a bounded body, or a [`SendError`]; a `reqwest::Error` is never returned, because it prints
//! the whole URL (`docs/adr/0005-one-upstream-http-client.md`).

#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Request, Response, StatusCode};
use secrecy::ExposeSecret as _;
use url::Url;

use super::body::{CollectedBody, collect, readable};
use super::call::UpstreamCall;
use super::egress::{Egress, ReadyClient};
use super::error::{EgressError, RedactedError, SendError, chain};
use super::mask::SecretMask;
use super::reply::UpstreamReply;
use crate::config::{Environment, EnvironmentProxies};
use crate::ports::credentials::Credential;

/// What the status 407 of a proxy means.
const PROXY_REFUSES: &str =
    "the proxy refuses the credential (407): put the user:password that it takes into proxy_credential";

/// The client could not be built: the TLS configuration of this machine is broken.
#[derive(Debug, thiserror::Error)]
#[error("the http client could not be built: {0}")]
pub struct HttpClientError(String);

/// The client for calls with the same proxy and TLS configuration (see [`Egress`]). Connections are pooled by host.
pub struct UpstreamHttpClient {
    egress: Egress,
    env: Arc<Environment>,
    pub(super) current: ArcSwap<Result<ReadyClient, EgressError>>,
    /// A digest of the files that the client was built from.
    seen: Mutex<Option<[u8; 32]>>,
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
    pub(super) fn open(egress: Egress, env: Arc<Environment>) -> Self {
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
    pub(super) fn refresh(&self) -> Result<bool, EgressError> {
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
pub(super) fn reply(
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
pub(super) fn refused_by_proxy(ready: &ReadyClient, response: &Response) -> Result<(), SendError> {
    let refused = response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    if ready.proxied && refused && response.url().scheme() == "http" {
        return Err(SendError::Connect(RedactedError(PROXY_REFUSES.to_owned())));
    }
    Ok(())
}

/// The one place where an error of the HTTP client is converted.
pub(super) fn convert(error: reqwest::Error, mask: &SecretMask) -> SendError {
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
