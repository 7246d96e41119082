//! Reads the body of a request, within its limits of size and time.

use std::error::Error as StdError;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use bytes::{BufMut as _, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::time::Instant;

use crate::inbound::http::body_limit;
use crate::inbound::http::deadline::timeout_at;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::min_rate_body::BodyTooSlow;

/// Reads a body to its end.
///
/// # Errors
/// Returns an error if it is longer than the limit of the layers, or takes longer than `wait`.
pub(super) async fn read(body: Body, wait: Duration) -> Result<Bytes, HttpRefusal> {
    let Ok(read) = timeout_at(|| Instant::now() + wait, whole(body)).await else {
        let message = format!("the body was not received within {wait:?}; send it without delay");
        return Err(HttpRefusal::new(RefusalKind::RequestTimeout, message));
    };
    read.map_err(|error| {
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

/// All bytes of a body. Those of one that arrives in one part, as most do, are not copied.
async fn whole(mut body: Body) -> Result<Bytes, axum::Error> {
    let Some(first) = body.frame().await else { return Ok(Bytes::new()) };
    let first = first?.into_data().unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = body.collect().await?.to_bytes();
    let mut bytes = BytesMut::with_capacity(first.len() + rest.len());
    bytes.put(first);
    bytes.put(rest);
    Ok(bytes.freeze())
}
