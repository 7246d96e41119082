//! The refusal of a stream that is not admitted, before it is open.

use std::time::Duration;

use crate::inbound::graphql::execution::endpoint::AdmissionError;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::streams::StreamLimitReached;

/// The refusal of a stream that is not admitted.
pub(super) fn admission_refusal(why: AdmissionError) -> HttpRefusal {
    match why {
        AdmissionError::Full(full) => limit_refusal(full),
        AdmissionError::Revoked => HttpRefusal::unauthenticated("the credential has expired or was revoked"),
    }
}

/// The refusal of a stream over the limit.
pub(super) fn limit_refusal(full: StreamLimitReached) -> HttpRefusal {
    let seconds = Duration::from_secs;
    match full {
        StreamLimitReached::Draining => {
            HttpRefusal::overloaded(seconds(1), "the gateway is shutting down; reconnect")
        }
        StreamLimitReached::Client => {
            let message = "stream or operation limit reached for this client \
                (max_streams_per_client, max_operations_per_client); close some streams";
            HttpRefusal::new(RefusalKind::TooManyRequests, message).retry_after(seconds(10))
        }
    }
}
