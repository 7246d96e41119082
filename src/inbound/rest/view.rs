//! A job as plain JSON: the fields of the GraphQL schema under the same names.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::domain::details::Details;
use crate::domain::job::Job;
use crate::jobs::answer::Seen;

/// Seconds to wait before asking again about a job that nobody follows.
const ASK_AGAIN: u64 = 5;

/// The whole answer.
pub(super) fn body(seen: &Seen) -> Value {
    let mut body = facts(&seen.observation.job);
    body["freshness"] = json!({
        "observedAt": seen.observation.observed_at,
        "ageMs": u64::try_from(seen.age.as_millis()).unwrap_or(u64::MAX),
        "isStale": seen.stale.is_some(),
        "staleReason": seen.stale.map(crate::jobs::answer::StaleReason::name),
        "nextPollAt": seen.next_look,
    });
    body
}

/// A weak tag over what the job says: two answers that differ only in age, or in the request that brought them, are
/// the same to a reader.
pub(super) fn etag(seen: &Seen) -> String {
    let mut facts = facts(&seen.observation.job);
    if let Some(details) = facts.get_mut("supermetrics").and_then(Value::as_object_mut) {
        details.remove("requestId");
        details.remove("queue");
    }
    facts["isStale"] = seen.stale.is_some().into();
    let hash = digest(&SHA256, facts.to_string().as_bytes());
    let (short, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(short))
}

/// Whole seconds until it is worth asking again: when the gateway itself will look, or a usual while; at least one.
pub(super) fn worth_asking_in(seen: &Seen) -> u64 {
    let until = seen.next_look.map(|next| next.duration_since(seen.observation.observed_at).as_secs());
    let left = until.map(|seconds| u64::try_from(seconds).unwrap_or(0).saturating_sub(seen.age.as_secs()));
    left.unwrap_or(ASK_AGAIN).max(1)
}

fn facts(job: &Job) -> Value {
    let (mindbridge, supermetrics) = match &job.details {
        Details::MindBridge(details) => (Some(details), None),
        Details::Supermetrics(details) => (None, Some(details)),
    };
    json!({
        "id": job.key.node_id(),
        "source": job.key.source.as_str(),
        "externalId": job.key.external_id.as_str(),
        "state": job.state().name(),
        "isTerminal": job.is_terminal(),
        "nativeState": job.native_state,
        "createdAt": job.created_at,
        "updatedAt": job.updated_at,
        "finishedAt": job.finished_at,
        "progress": job.progress,
        "failure": job.failure(),
        "mindbridge": mindbridge,
        "supermetrics": supermetrics,
    })
}
