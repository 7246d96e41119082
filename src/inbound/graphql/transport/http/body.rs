//! Reads the body of a request, within its limits of size and time.

use std::error::Error as StdError;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError};

use crate::inbound::http::body_limit;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::min_rate_body::BodyTooSlow;

/// Reads a body to its end.
///
/// # Errors
/// Returns an error if it is longer than the limit of the layers, or takes longer than `wait`.
pub(super) async fn read(body: Body, wait: Duration) -> Result<Bytes, HttpRefusal> {
    let Ok(read) = tokio::time::timeout(wait, body.collect()).await else {
        let message = format!("the body was not received within {wait:?}; send it without delay");
        return Err(HttpRefusal::new(RefusalKind::RequestTimeout, message));
    };
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return body_limit::body_too_large(None);
            }
            if error.is::<BodyTooSlow>() {
                let message = "the body was sent too slowly; send it without delay";
                return HttpRefusal::new(RefusalKind::RequestTimeout, message);
            }
            cause = error.source();
        }
        HttpRefusal::new(RefusalKind::Unreadable, "the body ended early; send it completely")
    })
}
