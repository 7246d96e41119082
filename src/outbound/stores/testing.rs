//! Test support: arbitrary observations of a few jobs.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::option::of;
use proptest::prelude::*;

use crate::domain::details::{
    Details, EntityRef, LicenceQueue, MindBridgeDetails, QueryField, QueryMeta, QueryResult,
    SupermetricsDetails, UserInfo,
};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::job::{Failure, Job, Life, Progress};
use crate::domain::json_text::JsonText;
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;

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
            // only Supermetrics has this state, and a record of an earlier version is read differently
            let life = match (life, &details) {
                (Life::Expired, Details::MindBridge(_)) => Life::Running,
                (life, _) => life,
            };
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

fn details() -> impl Strategy<Value = Details> {
    prop_oneof![
        mind().prop_map(|details| Details::MindBridge(Box::new(details))),
        metrics().prop_map(|details| Details::Supermetrics(Box::new(details))),
    ]
}

fn mind() -> impl Strategy<Value = MindBridgeDetails> {
    let pair = || of((of(TEXT), of(TEXT)));
    (of(0_i64..3), of(TEXT), pair(), pair(), pair(), of(TEXT), of(TEXT)).prop_map(
        |(version, kind, entity, created_by, last_modified_by, error, error_message)| {
            let person = |(user_id, user_name)| UserInfo { user_id, user_name };
            MindBridgeDetails {
                version,
                kind,
                entity: entity.map(|(id, entity_type)| EntityRef { id, entity_type }),
                created_by: created_by.map(person),
                last_modified_by: last_modified_by.map(person),
                error,
                error_message,
            }
        },
    )
}

fn metrics() -> impl Strategy<Value = SupermetricsDetails> {
    let field = (of(TEXT), of(TEXT), of(TEXT), of(any::<i64>()))
        .prop_map(|(id, name, data_type, data_column)| QueryField { id, name, data_type, data_column });
    let account = prop_oneof![
        TEXT.prop_map(|text| serde_json::Value::from(text).to_string()),
        Just("18446744073709551616".to_owned()),
        Just(r#"{"id":"\u0041"}"#.to_owned()),
    ]
    .prop_map(|text| JsonText::parse(&text).unwrap());
    let accounts = prop::collection::vec(account, 0..3);
    let query = (of(TEXT), of(TEXT), accounts, prop::collection::vec(field, 0..3)).prop_map(
        |(start_date, end_date, accounts, fields)| QueryMeta { start_date, end_date, accounts, fields },
    );
    let seconds = of(any::<f64>().prop_filter("JSON has no such numbers", |number| number.is_finite()));
    let result = (of(any::<i64>()), of(any::<i64>()), seconds, of(any::<bool>()), of(any::<bool>()))
        .prop_map(|(total_rows, total_columns, run_seconds, data_sampled, cache_used)| QueryResult {
            total_rows,
            total_columns,
            run_seconds,
            data_sampled,
            cache_used,
            cache_time: Some(at(1)),
        });
    let queue = (of(any::<i64>()), of(any::<i64>()))
        .prop_map(|(tasks_scheduled, tasks_running)| LicenceQueue { tasks_scheduled, tasks_running });
    (of(TEXT), of(TEXT), of(queue), of(query), of(result)).prop_map(
        |(request_id, schedule_id, queue, query, result)| SupermetricsDetails {
            request_id,
            schedule_id,
            queue,
            query,
            result,
        },
    )
}
