//! The body of a record: JSON with short names that never change their meaning. Absent and unknown members are allowed;
//! destructuring a domain type without `..` makes a new field a compile error here.

mod mindbridge;
mod supermetrics;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::mindbridge::MindBridgeRecord;
use self::supermetrics::SupermetricsRecord;
use super::clock::{RecordClock, moved};
use crate::domain::details::Details;
use crate::domain::history::{History, Transition};
use crate::domain::id::JobKey;
use crate::domain::job::{Failure, Job, Life, Progress};
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;
use crate::domain::state::JobState;

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
    #[serde(default, skip_serializing_if = "is_default")]
    discovered: bool,
    /// The transitions, oldest first; absent in records of versions that kept none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<TransitionRecord>,
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
struct TransitionRecord {
    life: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native: Option<String>,
    seen: Timestamp,
    /// By the upstream's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireDetails {
    MindBridge(MindBridgeRecord),
    Supermetrics(SupermetricsRecord),
}

/// Serializes the body of a record.
pub(super) fn write(observation: &Observation, frame: &RecordClock) -> Vec<u8> {
    let Observation { job, requested_at, observed_at, rollbacks, sightings, history } = observation;
    let Sightings { first_seen_at, state_since, terminal_seen_at, discovered } = sightings;
    let dated = |at: &Option<Timestamp>| at.map(|at| moved(at, frame.shift));
    let Job { key: _, life: _, native_state, created_at, updated_at, finished_at, progress, details } =
        &**job;
    let (code, message) =
        job.failure().map_or((None, None), |failure| (failure.code.clone(), failure.message.clone()));
    let body = RecordBody {
        asked: moved(*requested_at, frame.shift),
        seen: moved(*observed_at, frame.shift),
        run: frame.run,
        shift: frame.shift,
        life: word(job.state()).to_owned(),
        first: dated(first_seen_at),
        since: dated(state_since),
        ended: dated(terminal_seen_at),
        discovered: *discovered,
        past: history.transitions().iter().map(|one| TransitionRecord::new(one, frame)).collect(),
        code,
        message,
        native: native_state.clone(),
        created: *created_at,
        updated: *updated_at,
        finished: *finished_at,
        progress: progress.map(|Progress { completed, total }| (completed, total)),
        rollbacks: *rollbacks,
        details: match details {
            Details::MindBridge(details) => WireDetails::MindBridge((&**details).into()),
            Details::Supermetrics(details) => WireDetails::Supermetrics((&**details).into()),
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
        discovered: body.discovered,
    };
    let mut past: Vec<Transition> = body.past.into_iter().map(|one| one.into_transition(back)).collect();
    if past.is_empty() {
        // an older record has only the transition into its state, if it has its time
        let native = job.native_state.as_deref();
        past.extend(sightings.state_since.map(|since| Transition::new(job.state(), native, since, None)));
    }
    let history = History::new(past);
    let observation = Observation { sightings, history, ..Observation::new(Arc::new(job), asked, seen) };
    Some(DatedRecord { observation: observation.after_rollbacks(body.rollbacks), is_own })
}

impl TransitionRecord {
    fn new(transition: &Transition, frame: &RecordClock) -> Self {
        let Transition { state, native_state, observed_at, upstream_at } = transition;
        Self {
            life: word(*state).to_owned(),
            native: native_state.as_deref().map(ToOwned::to_owned),
            seen: moved(*observed_at, frame.shift),
            changed: *upstream_at,
        }
    }

    /// `back`: what converts its time into process time.
    fn into_transition(self, back: i64) -> Transition {
        let Self { life, native, seen, changed } = self;
        // one that this version does not know
        let state = JobState::ALL.into_iter().find(|state| word(*state) == life);
        let state = state.unwrap_or(JobState::Unknown);
        Transition::new(state, native.as_deref(), moved(seen, back), changed)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Canceled => "canceled",
        JobState::Expired => "expired",
        JobState::Unknown => "unknown",
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
