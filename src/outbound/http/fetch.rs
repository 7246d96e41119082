//! A plain read of something public: no credential of ours goes along, and what comes back is bounded like any answer.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Request};
use url::Url;

use super::{HttpRoad, Mask, Reply, SendError, collect, convert, reply};

impl HttpRoad {
    /// Gets what is at a URL, with no credential, at most `max_body` decoded bytes, and all of it within `timeout`.
    ///
    /// Any HTTP status is a [`Reply`]. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When no whole answer came back.
    pub async fn fetch(&self, url: &Url, max_body: usize, timeout: Duration) -> Result<Reply, SendError> {
        let mut request = Request::new(Method::GET, url.clone());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let exchange = async {
            #[expect(clippy::disallowed_methods, reason = "the one send, for what needs no credential")]
            let response = self.client.execute(request).await.map_err(bare)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = collect(response, max_body, bare).await?;
            // no credential went along, so none can come back
            reply(status, &headers, body, max_body, &Mask::default())
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(SendError::TimedOut(timeout)))
    }
}

/// No credential went along, so there is none to mask.
fn bare(error: reqwest::Error) -> SendError {
    convert(error, &Mask::default())
}
