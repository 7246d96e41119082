//! Test support: arbitrary observations of a few jobs.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::option::of;
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::domain::details::Details;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Failure, Job, Life, Progress};
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;
use crate::domain::upstream::Upstream;

const TEXT: &str = ".{0,8}";

/// An arbitrary observation of a job whose source and id match these patterns. Times are within two minutes of
/// 2023-11-14.
pub(in crate::outbound) fn observation(
    source: &'static str,
    id: &'static str,
) -> impl Strategy<Value = Observation> {
    let job = (source, id, life(), details(), of(TEXT), times(), of((0_u32..9, 0_u32..9)));
    (job, 0_i64..60_000, 0_i64..60_000, 0_u32..2).prop_map(
        |((source, id, life, details, native, times, progress), requested_at, took, rollbacks)| {
            let key = JobKey {
                source: SourceName::parse(&source).unwrap(),
                external_id: ExternalId::parse(&id).unwrap(),
            };
            let [created_at, updated_at, finished_at] = times;
            let progress = progress.map(|(completed, total)| Progress { completed, total });
            // other upstreams do not have this state, and a record of an earlier version is read differently
            let documents_expiry = details.upstream().profile().documents_expiry;
            let life = if life == Life::Expired && !documents_expiry { Life::Running } else { life };
            let new = Job::new(key, life, details);
            let job = Job { native_state: native, created_at, updated_at, finished_at, progress, ..new };
            let seen = Observation::new(Arc::new(job), at(requested_at), at(requested_at + took))
                .after_rollbacks(rollbacks);
            let first = took % 3 == 0;
            // as an earlier version wrote it, or as one that had replaced another
            let held = Observation { sightings: Sightings::default(), ..seen.clone() };
            if first { seen.replacing(Some(&held)) } else { seen }
        },
    )
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

fn life() -> impl Strategy<Value = Life> {
    let failure = (of(TEXT), of(TEXT)).prop_map(|(code, message)| Failure { code, message });
    prop_oneof![
        Just(Life::Queued),
        Just(Life::Running),
        Just(Life::Succeeded),
        failure.prop_map(Life::Failed),
        Just(Life::Canceled),
        Just(Life::Expired),
        Just(Life::Unknown),
    ]
}

fn times() -> impl Strategy<Value = [Option<Timestamp>; 3]> {
    // far apart, and to the nanosecond
    let one = || {
        let any = (-60_000_000_000_i64..250_000_000_000, 0_i32..1_000_000_000);
        of(any.prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap()))
    };
    [one(), one(), one()]
}

/// Of any upstream.
fn details() -> impl Strategy<Value = Details> {
    Union::new(Upstream::ALL.iter().map(|upstream| upstream.arbitrary_details()))
}
