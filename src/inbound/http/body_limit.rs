//! The longest request body, and its minimum rate.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use http_body_util::Limited;

use super::error::{HttpRefusal, RefusalKind};
use super::min_rate_body::{BodyRate, MinRateBody};

/// Limits the body of a request while it is read.
///
/// # Errors
/// When its announced length is over the limit.
pub(super) fn bound(max_body: usize, pace: BodyRate, request: &mut Request) -> Result<(), HttpRefusal> {
    let size = request.body().size_hint();
    if size.lower() > max_body as u64 {
        return Err(body_too_large(Some(max_body)));
    }
    if request.body().is_end_stream() {
        return Ok(());
    }
    // most bodies state their length, beyond which they are not read
    let is_within = size.upper().is_some_and(|bytes| bytes <= max_body as u64);
    let body = std::mem::take(request.body_mut());
    let body = if is_within { body } else { Body::new(Limited::new(body, max_body)) };
    *request.body_mut() = Body::new(MinRateBody::new(body, pace));
    Ok(())
}

/// The refusal of a body that is longer than the limit, whether announced or found while reading.
pub(in crate::inbound) fn body_too_large(limit: Option<usize>) -> HttpRefusal {
    let refusal = HttpRefusal::new(
        RefusalKind::BodyTooLarge,
        "the body exceeds the size limit; send fewer refs or a shorter document",
    );
    match limit {
        Some(limit) => refusal.with("limit", "max_body").with("value", limit),
        None => refusal,
    }
}
