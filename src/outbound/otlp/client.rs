//! The crate's HTTP client behind the interface of the exporters. Its errors contain no address.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::Client;

use super::error::OtlpError;
use crate::outbound::http::strict_client;

/// The largest response of a collector that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// The client. Needs an entered runtime.
pub(super) struct OtlpClient(Client);

impl OtlpClient {
    pub(super) fn new() -> Result<Self, OtlpError> {
        strict_client().build().map(Self).map_err(|_| OtlpError::Client)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the only send to a collector, which is not an upstream"
        )]
        let mut response = self.0.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + piece.len() > ANSWER_MAX {
                return Err("the collector's answer is too large".into());
            }
            body.extend_from_slice(&piece);
        }
        let mut answer = Response::new(body.freeze());
        *answer.status_mut() = response.status();
        answer.headers_mut().clone_from(response.headers());
        Ok(answer)
    }
}

impl HttpClient for OtlpClient {
    fn send_bytes<'client, 'answer>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'client: 'answer,
        Self: 'answer,
    {
        Box::pin(self.send(request))
    }
}

impl fmt::Debug for OtlpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtlpClient")
    }
}
