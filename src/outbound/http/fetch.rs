//! Reads a public resource without a credential; the response is bounded like any other.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Request};
use url::Url;

use super::body::collect;
use super::client::{UpstreamHttpClient, convert, refused_by_proxy, reply};
use super::error::SendError;
use super::reply::UpstreamReply;

impl UpstreamHttpClient {
    /// Fetches a URL without a credential: at most `max_body` decoded bytes, and all of it within `timeout`.
    ///
    /// Any HTTP status is an [`UpstreamReply`]. Dropping the future closes the connection.
    ///
    /// # Errors
    /// Returns an error if there is no complete response.
    pub async fn fetch(
        &self,
        url: &Url,
        max_body: usize,
        timeout: Duration,
    ) -> Result<UpstreamReply, SendError> {
        let current = self.current.load_full();
        let ready = current.as_ref().as_ref().map_err(|fault| SendError::Egress(fault.clone()))?;
        let mut request = Request::new(Method::GET, url.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let masked = |error: reqwest::Error| convert(error, &ready.mask);
        let exchange = async {
            #[expect(clippy::disallowed_methods, reason = "the only send without a credential")]
            let response = ready.client.execute(request).await.map_err(masked)?;
            refused_by_proxy(ready, &response)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = collect(response, max_body, masked).await?;
            // only the proxy's credential was sent, so no other can be echoed
            reply(status, &headers, body, max_body, &ready.mask)
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(SendError::TimedOut(timeout)))
    }
}
