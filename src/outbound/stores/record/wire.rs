//! The body of a record: JSON with short names that never change their meaning. Absent and unknown members are allowed;
//! destructuring a domain type without `..` makes a new field a compile error here.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::{RecordClock, moved};
use crate::domain::details::{
    Details, EntityRef, LicenceQueue, MindBridgeDetails, QueryField, QueryMeta, QueryResult,
    SupermetricsDetails, UserInfo,
};
use crate::domain::id::JobKey;
use crate::domain::job::{Failure, Job, Life, Progress};
use crate::domain::json_text::JsonText;
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;

/// A record after parsing.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::outbound) struct DatedRecord {
    /// The observation, in process time. Not clamped.
    pub(in crate::outbound) observation: Observation,
    /// Whether this run of the process wrote it.
    pub(in crate::outbound) is_own: bool,
}

#[derive(Serialize, Deserialize)]
struct RecordBody {
    asked: Timestamp,
    seen: Timestamp,
    /// The run of a process that wrote it, and the offset of its times to that run's own; absent in older records.
    #[serde(default, skip_serializing_if = "is_default")]
    run: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    shift: i64,
    life: String,
    /// When the run was first observed, when its state, and when a terminal state of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "is_default")]
    rollbacks: u32,
    #[serde(flatten)]
    details: WireDetails,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireDetails {
    MindBridge(MindBridgeRecord),
    Supermetrics(SupermetricsRecord),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct MindBridgeRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modifier: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

/// An id and a name.
type IdNameRecord = (Option<String>, Option<String>);

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct SupermetricsRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<(Option<i64>, Option<i64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<QueryRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<OutcomeRecord>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct QueryRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<Value>,
    /// The accounts as texts, if one of them would not be read back unchanged from `accounts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exact: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldRecord>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct FieldRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    data_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<i64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct OutcomeRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<i64>,
    /// Text: JSON numbers are not read back exactly (`docs/adr/0007-upstream-bytes-are-kept.md`).
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_at: Option<Timestamp>,
}

/// Serializes the body of a record.
pub(super) fn write(observation: &Observation, frame: &RecordClock) -> Vec<u8> {
    let Observation { job, requested_at, observed_at, rollbacks, sightings } = observation;
    let Sightings { first_seen_at, state_since, terminal_seen_at } = sightings;
    let dated = |at: &Option<Timestamp>| at.map(|at| moved(at, frame.shift));
    let Job { key: _, life, native_state, created_at, updated_at, finished_at, progress, details } = &**job;
    let (code, message) =
        job.failure().map_or((None, None), |failure| (failure.code.clone(), failure.message.clone()));
    let body = RecordBody {
        asked: moved(*requested_at, frame.shift),
        seen: moved(*observed_at, frame.shift),
        run: frame.run,
        shift: frame.shift,
        life: word(life).to_owned(),
        first: dated(first_seen_at),
        since: dated(state_since),
        ended: dated(terminal_seen_at),
        code,
        message,
        native: native_state.clone(),
        created: *created_at,
        updated: *updated_at,
        finished: *finished_at,
        progress: progress.map(|Progress { completed, total }| (completed, total)),
        rollbacks: *rollbacks,
        details: match details {
            Details::MindBridge(details) => WireDetails::MindBridge(MindBridgeRecord::from(&**details)),
            Details::Supermetrics(details) => WireDetails::Supermetrics(SupermetricsRecord::from(&**details)),
        },
    };
    serde_json::to_vec(&body)
        .unwrap_or_else(|_| unreachable!("texts, numbers and lists of them can be serialized"))
}

/// Parses the body of a record; `None` when it contains a value that this version does not know.
pub(super) fn read(key: &JobKey, bytes: &[u8], frame: &RecordClock) -> Option<DatedRecord> {
    let body: RecordBody = serde_json::from_slice(bytes).ok()?;
    let life = life(&body.life, Failure { code: body.code, message: body.message })?;
    let details = match body.details {
        WireDetails::MindBridge(details) => Details::MindBridge(Box::new(details.into())),
        WireDetails::Supermetrics(details) => Details::Supermetrics(Box::new(details.into())),
    };
    let mut job = Job {
        native_state: body.native,
        created_at: body.created,
        updated_at: body.updated,
        finished_at: body.finished,
        progress: body.progress.and_then(|(completed, total)| Progress::new(completed.into(), total.into())),
        ..Job::new(key.clone(), life, details)
    };
    let is_own = body.run == frame.run;
    let back = if is_own { body.shift } else { frame.others }.saturating_neg();
    let (mut asked, mut seen) = (moved(body.asked, back), moved(body.seen, back));
    if job.life == Life::Expired && !job.upstream().profile().documents_expiry {
        // Earlier versions treated any 404 as the end of a job. The last state that the upstream reported is kept, with
        // its time, so that the next read fetches the job again.
        let was_running =
            job.native_state.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("IN_PROGRESS"));
        job.life = if was_running { Life::Running } else { Life::Unknown };
        asked = job.updated_at.or(job.created_at).map_or(asked, |known| known.min(asked));
        seen = asked;
    }
    let sightings = Sightings {
        first_seen_at: body.first.map(|at| moved(at, back)),
        state_since: body.since.map(|at| moved(at, back)),
        terminal_seen_at: body.ended.map(|at| moved(at, back)),
    };
    let observation = Observation { sightings, ..Observation::new(Arc::new(job), asked, seen) };
    Some(DatedRecord { observation: observation.after_rollbacks(body.rollbacks), is_own })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn word(life: &Life) -> &'static str {
    match life {
        Life::Queued => "queued",
        Life::Running => "running",
        Life::Succeeded => "succeeded",
        Life::Failed(_) => "failed",
        Life::Canceled => "canceled",
        Life::Expired => "expired",
        Life::Unknown => "unknown",
    }
}

fn life(word: &str, failure: Failure) -> Option<Life> {
    Some(match word {
        "queued" => Life::Queued,
        "running" => Life::Running,
        "succeeded" => Life::Succeeded,
        "failed" => Life::Failed(failure),
        "canceled" => Life::Canceled,
        "expired" => Life::Expired,
        "unknown" => Life::Unknown,
        _ => return None,
    })
}

/// Accounts as values, which every version reads, and as texts if a value would not preserve them.
fn write_accounts(accounts: Vec<JsonText>) -> (Vec<Value>, Vec<String>) {
    let values: Vec<Value> =
        accounts.iter().filter_map(|account| serde_json::from_str(account.get()).ok()).collect();
    let is_exact = values.len() == accounts.len()
        && values
            .iter()
            .zip(&accounts)
            .all(|(value, account)| serde_json::to_string(value).is_ok_and(|text| text == account.get()));
    let exact = if is_exact { Vec::new() } else { accounts.into_iter().map(JsonText::into_text).collect() };
    (values, exact)
}

fn read_accounts(values: &[Value], exact: &[String]) -> Vec<JsonText> {
    if exact.is_empty() {
        values.iter().filter_map(|value| JsonText::parse(&value.to_string())).collect()
    } else {
        exact.iter().filter_map(|text| JsonText::parse(text)).collect()
    }
}

impl From<&MindBridgeDetails> for MindBridgeRecord {
    fn from(details: &MindBridgeDetails) -> Self {
        let MindBridgeDetails { version, kind, entity, created_by, last_modified_by, error, error_message } =
            details;
        let person = |UserInfo { user_id, user_name }: &UserInfo| (user_id.clone(), user_name.clone());
        let thing = |EntityRef { id, entity_type }: &EntityRef| (id.clone(), entity_type.clone());
        Self {
            version: *version,
            kind: kind.clone(),
            entity: entity.as_ref().map(thing),
            creator: created_by.as_ref().map(person),
            modifier: last_modified_by.as_ref().map(person),
            error: error.clone(),
            error_message: error_message.clone(),
        }
    }
}

impl From<MindBridgeRecord> for MindBridgeDetails {
    fn from(mind: MindBridgeRecord) -> Self {
        let MindBridgeRecord { version, kind, entity, creator, modifier, error, error_message } = mind;
        let person = |(user_id, user_name): IdNameRecord| UserInfo { user_id, user_name };
        Self {
            version,
            kind,
            entity: entity.map(|(id, entity_type)| EntityRef { id, entity_type }),
            created_by: creator.map(person),
            last_modified_by: modifier.map(person),
            error,
            error_message,
        }
    }
}

impl From<&SupermetricsDetails> for SupermetricsRecord {
    fn from(details: &SupermetricsDetails) -> Self {
        let SupermetricsDetails { request_id, schedule_id, queue, query, result } = details;
        let counts = |LicenceQueue { tasks_scheduled, tasks_running }: &LicenceQueue| {
            (*tasks_scheduled, *tasks_running)
        };
        Self {
            request: request_id.clone(),
            schedule: schedule_id.clone(),
            queue: queue.as_ref().map(counts),
            query: query.as_ref().map(|query| {
                let QueryMeta { start_date, end_date, accounts, fields } = query.clone();
                let field = |QueryField { id, name, data_type, data_column }| FieldRecord {
                    id,
                    name,
                    data_type,
                    column: data_column,
                };
                let (accounts, exact) = write_accounts(accounts);
                QueryRecord {
                    start: start_date,
                    end: end_date,
                    accounts,
                    exact,
                    fields: fields.into_iter().map(field).collect(),
                }
            }),
            result: result.as_ref().map(|result| {
                let QueryResult {
                    total_rows,
                    total_columns,
                    run_seconds,
                    data_sampled,
                    cache_used,
                    cache_time,
                } = result;
                OutcomeRecord {
                    rows: *total_rows,
                    columns: *total_columns,
                    seconds: run_seconds.map(|seconds| seconds.to_string()),
                    sampled: *data_sampled,
                    cached: *cache_used,
                    cached_at: *cache_time,
                }
            }),
        }
    }
}

impl From<SupermetricsRecord> for SupermetricsDetails {
    fn from(metrics: SupermetricsRecord) -> Self {
        let SupermetricsRecord { request, schedule, queue, query, result } = metrics;
        let field = |FieldRecord { id, name, data_type, column }| QueryField {
            id,
            name,
            data_type,
            data_column: column,
        };
        Self {
            request_id: request,
            schedule_id: schedule,
            queue: queue
                .map(|(tasks_scheduled, tasks_running)| LicenceQueue { tasks_scheduled, tasks_running }),
            query: query.map(|QueryRecord { start, end, accounts, exact, fields }| QueryMeta {
                start_date: start,
                end_date: end,
                accounts: read_accounts(&accounts, &exact),
                fields: fields.into_iter().map(field).collect(),
            }),
            result: result.map(|OutcomeRecord { rows, columns, seconds, sampled, cached, cached_at }| {
                QueryResult {
                    total_rows: rows,
                    total_columns: columns,
                    run_seconds: seconds.and_then(|seconds| seconds.parse().ok()),
                    data_sampled: sampled,
                    cache_used: cached,
                    cache_time: cached_at,
                }
            }),
        }
    }
}
