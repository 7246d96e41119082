//! The longest request body, and its minimum rate.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use http::header;
use http_body_util::Limited;

use super::error::{HttpRefusal, RefusalKind};
use super::min_rate_body::{BodyRate, MinRateBody};

/// Limits the body of a request while it is read.
///
/// # Errors
/// When its announced length is over the limit.
pub(super) fn bounded(max_body: usize, pace: BodyRate, request: Request) -> Result<Request, HttpRefusal> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_body as u64) {
        return Err(body_too_large(Some(max_body)));
    }
    if request.body().is_end_stream() {
        return Ok(request);
    }
    Ok(request.map(|body| {
        // most bodies state their length, beyond which they are not read
        let is_within = body.size_hint().upper().is_some_and(|bytes| bytes <= max_body as u64);
        let body = if is_within { body } else { Body::new(Limited::new(body, max_body)) };
        Body::new(MinRateBody::new(body, pace))
    }))
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
