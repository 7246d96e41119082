//! A gateway: one query, and one stream of updates. `follow` reopens streams; nothing here is printed.

mod endpoint;
mod error;
mod http;
mod retry_after;
mod sse;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Request, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use url::Url;

pub(crate) use self::error::GatewayError;
use self::retry_after::retry_after;
use self::sse::SseReader;
pub(crate) use self::wire::{
    FieldSet, JobOutcome, WireEstimate, WireFailure, WireJob, WireJobEdge, WireJobPage, WireLabel, WireRef,
    WireResult, WireRowPage, WireRows, WireTransition, WireUpdate,
};
use crate::{clock, duration};

/// The largest number of jobs in one query or one stream; the gateway's own limit.
pub(crate) const REFS_MAX: usize = 200;
/// The largest page of a connection; the gateway's own limit.
pub(crate) const PAGE_MAX: u32 = 100;

/// How long a stream may take to open: a gateway sends its headers at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stream may be silent: a gateway sends a keep-alive every 15 s unless it is configured otherwise.
const SILENCE: Duration = Duration::from_mins(1);
/// The largest response to a query, and the largest event, in bytes.
const BODY_MAX: usize = 32 << 20;
/// The largest body that is read from an error response.
const REFUSAL_MAX: usize = 64 << 10;

/// Why a gateway client cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetupError {
    /// The URL is invalid.
    #[error("the gateway's url {0}")]
    Url(&'static str),
    /// The key contains characters that a header cannot contain. The key is not printed.
    #[error("the key must be one line of visible ASCII characters, as printed by `jobgate key new`")]
    Key,
    /// TLS cannot be set up on this machine.
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

/// A gateway and the credential for it. A clone is cheap and shares the connections.
#[derive(Clone, Debug)]
pub(crate) struct GatewayClient {
    client: Client,
    endpoint: Url,
    key: Option<SecretString>,
}

/// An open stream of updates.
#[derive(Debug)]
pub(crate) struct UpdateStream {
    response: Response,
    reader: SseReader,
    read: VecDeque<sse::SseEvent>,
}

impl GatewayClient {
    /// Prepares a client for the gateway at `base`; its `/graphql` is below that. Sends nothing.
    ///
    /// No redirects and no proxy from the environment: the key is sent to that address only.
    ///
    /// # Errors
    /// Returns an error if the URL or the key cannot be used, or TLS cannot be set up.
    pub(crate) fn new(base: Url, key: Option<SecretString>) -> Result<Self, SetupError> {
        let endpoint = endpoint::endpoint(base).map_err(SetupError::Url)?;
        let graphic = |key: &SecretString| {
            let key = key.expose_secret();
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if key.as_ref().is_some_and(|key| !graphic(key)) {
            return Err(SetupError::Key);
        }
        let client = http::client().map_err(|error| SetupError::Client(error.without_url().to_string()))?;
        Ok(Self { client, endpoint, key })
    }

    /// Queries jobs once: the results are in the order of `refs`, of which there are 1 to [`REFS_MAX`]. Cancel safe.
    ///
    /// # Errors
    /// Returns an error if there is no complete response. A job's own problem is a result, not an error.
    pub(crate) async fn jobs(
        &self,
        refs: &[WireRef],
        max_staleness: Option<Duration>,
        set: FieldSet,
    ) -> Result<Vec<WireResult>, GatewayError> {
        let (result, _) = self.query(&wire::query(set), &of_refs(refs, max_staleness)).await?;
        let jobs = result.pointer("/data/jobs").and_then(Value::as_array);
        let answers: Option<Vec<WireResult>> =
            jobs.and_then(|jobs| jobs.iter().cloned().map(WireResult::read).collect());
        let whole = answers.filter(|answers| answers.len() == refs.len());
        whole.ok_or_else(|| GatewayError::of_result(&result))
    }

    /// Queries a page of at most [`PAGE_MAX`] jobs. `filter` is a `JobFilter`, `order_by` a `JobOrder` or null. Cancel
    /// safe.
    ///
    /// # Errors
    /// Returns an error if there is no complete response.
    pub(crate) async fn job_list(
        &self,
        (filter, order_by): (&Value, &Value),
        (first, after): (u32, Option<&str>),
        count: bool,
        set: FieldSet,
    ) -> Result<WireJobPage, GatewayError> {
        let variables =
            json!({ "filter": filter, "orderBy": order_by, "first": first, "after": after, "count": count });
        let (result, _) = self.query(&wire::list(set), &variables).await?;
        let page = result.pointer("/data/jobList").and_then(WireJobPage::read);
        page.ok_or_else(|| GatewayError::of_result(&result))
    }

    /// Queries a job and a page of at most [`PAGE_MAX`] of its rows. Cancel safe.
    ///
    /// # Errors
    /// Returns an error if there is no complete response.
    pub(crate) async fn rows(&self, of: &WireRef, after: Option<&str>) -> Result<WireRows, GatewayError> {
        let variables = json!({ "ref": of.to_json(), "first": PAGE_MAX, "after": after });
        let (result, body) = self.query(&wire::rows(), &variables).await?;
        WireRows::read(&result, &body).ok_or_else(|| GatewayError::of_result(&result))
    }

    /// Sends a query: its result, parsed and as it was sent.
    async fn query(&self, document: &str, variables: &Value) -> Result<(Value, Vec<u8>), GatewayError> {
        let accept = "application/graphql-response+json, application/json;q=0.9";
        let mut response = self.post(document, variables, accept).await?;
        let (status, retry_after) = (response.status(), requested_pause(&response));
        let body = collect(&mut response, BODY_MAX).await?;
        let result: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() || !(result.get("data").is_some() || result.get("errors").is_some()) {
            return Err(GatewayError::of_answer(status, retry_after, &body));
        }
        Ok((result, body))
    }

    /// Opens a stream of updates on 1 to [`REFS_MAX`] jobs.
    pub(crate) async fn updates(
        &self,
        refs: &[WireRef],
        max_staleness: Option<Duration>,
        set: FieldSet,
    ) -> Result<UpdateStream, GatewayError> {
        let (document, variables) = (wire::subscription(set), of_refs(refs, max_staleness));
        let opening = self.post(&document, &variables, "text/event-stream");
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
        let mut response = opened
            .unwrap_or_else(|_| Err(GatewayError::passing("the gateway takes too long to open a stream")))?;
        let is_stream = response.headers().get(CONTENT_TYPE).is_some_and(|media| {
            let media = media.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            media.trim().eq_ignore_ascii_case("text/event-stream")
        });
        if !response.status().is_success() || !is_stream {
            let (status, retry_after) = (response.status(), requested_pause(&response));
            // the body only adds detail; the status is sufficient
            let body = tokio::time::timeout(OPEN_TIMEOUT, collect(&mut response, REFUSAL_MAX)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            return Err(GatewayError::of_answer(status, retry_after, &body));
        }
        Ok(UpdateStream { response, reader: SseReader::new(BODY_MAX), read: VecDeque::new() })
    }

    /// Sends a request. The key is added last.
    async fn post(
        &self,
        document: &str,
        variables: &Value,
        accept: &'static str,
    ) -> Result<Response, GatewayError> {
        let body = json!({ "query": document, "variables": variables });
        let mut request = Request::new(Method::POST, self.endpoint.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
        if let Some(key) = &self.key {
            let value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()));
            let mut value = value.map_err(|_| GatewayError::lasting("the key cannot be sent in a header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        #[expect(clippy::disallowed_methods, reason = "the only send of the gateway client")]
        self.client.execute(request).await.map_err(GatewayError::of_client)
    }
}

impl UpdateStream {
    /// The next update; `None` when the gateway completed the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<WireUpdate>, GatewayError> {
        loop {
            while let Some(event) = self.read.pop_front() {
                match event.name.as_str() {
                    "complete" => return Ok(None),
                    "next" => {
                        let result: Value = serde_json::from_str(&event.data).unwrap_or_default();
                        let update = result.pointer("/data/jobUpdates").cloned().and_then(WireUpdate::read);
                        return update.map(Some).ok_or_else(|| GatewayError::of_result(&result));
                    }
                    // a later version of the protocol may have more events
                    _ => {}
                }
            }
            let piece = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            let piece = piece.map_err(|_| GatewayError::passing("the stream fell silent"))?;
            match piece.map_err(GatewayError::of_client)? {
                Some(piece) => self.read.extend(
                    self.reader
                        .read(&piece)
                        .map_err(|_| GatewayError::lasting("the gateway sent an event that is too long"))?,
                ),
                None => return Err(GatewayError::passing("the stream was cut")),
            }
        }
    }
}

/// The variables of a request about jobs.
fn of_refs(refs: &[WireRef], max_staleness: Option<Duration>) -> Value {
    let refs: Vec<Value> = refs.iter().map(WireRef::to_json).collect();
    json!({ "refs": refs, "maxStaleness": max_staleness.map(duration::format) })
}

/// The pause that a response requests.
fn requested_pause(response: &Response) -> Option<Duration> {
    retry_after(response.headers(), clock::time_of_day())
}

async fn collect(response: &mut Response, most: usize) -> Result<Vec<u8>, GatewayError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(GatewayError::of_client)? {
        if body.len() + piece.len() > most {
            return Err(GatewayError::lasting("the gateway's answer is too long"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
