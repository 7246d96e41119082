//! The serialized form of an observation: sealed by a checksum over its key and itself, and readable by versions with
//! more or fewer fields. No domain type is serialized directly, so that renaming one changes no file.

use aws_lc_rs::digest;
use jiff::Timestamp;

use crate::domain::durations::JobClass;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;

mod clock;
mod sweep;
mod wire;

pub(in crate::outbound) use self::clock::RecordClock;
pub(in crate::outbound) use self::sweep::{read_sweep, write_sweep};
pub(in crate::outbound) use self::wire::DatedRecord;

/// The first byte of every record: the layout of what follows.
const LAYOUT: u8 = 1;
/// Layout, state and time of observation.
const HEAD: usize = 1 + 1 + 8;
/// The first bytes of a SHA-256: sufficient against accidental damage. It is no authentication.
const SUM: usize = 16;

/// Why a record cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::outbound) enum RecordError {
    /// Its bytes are not those that were written for this key.
    #[error("is damaged")]
    Damaged,
    /// It is intact, and contains a value that this version does not know.
    #[error("was written by a newer version")]
    Strange,
}

/// The head of a record, without parsing the body. Not verified: only for decisions that a wrong value does not spoil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    /// The state; `None` for one that this version does not know.
    pub(super) state: Option<JobState>,
    /// When the response was complete, to the millisecond.
    pub(super) observed_ms: i64,
}

/// The bytes of a key. They sort like keys: the separator is smaller than any byte of the parts.
pub(in crate::outbound) fn key_bytes(key: &JobKey) -> Vec<u8> {
    [key.source.as_str().as_bytes(), &[0], key.external_id.as_str().as_bytes()].concat()
}

/// Parses a key.
pub(in crate::outbound) fn read_key(bytes: &[u8]) -> Option<JobKey> {
    use crate::domain::id::ExternalId;
    let (source, external_id) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
    Some(JobKey {
        source: SourceName::parse(source).ok()?,
        external_id: ExternalId::parse(external_id).ok()?,
    })
}

/// The bytes of a job class, unique among all classes.
pub(super) fn class_bytes(class: &JobClass) -> Vec<u8> {
    let JobClass { source, kind, running } = class;
    let state = if *running { "running" } else { "queued" };
    let kind = kind.iter().flat_map(|kind| ["\0", kind]);
    [source.as_str(), "\0", state].into_iter().chain(kind).collect::<String>().into_bytes()
}

/// Parses a job class.
pub(super) fn read_class(bytes: &[u8]) -> Option<JobClass> {
    let (source, rest) = std::str::from_utf8(bytes).ok()?.split_once('\0')?;
    let (state, kind) = rest.split_once('\0').map_or((rest, None), |(state, kind)| (state, Some(kind)));
    let running = match state {
        "running" => true,
        "queued" => false,
        _ => return None,
    };
    Some(JobClass { source: SourceName::parse(source).ok()?, kind: kind.map(ToOwned::to_owned), running })
}

/// Serializes an observation. `key` is that of its job, in bytes.
pub(in crate::outbound) fn write(key: &[u8], observation: &Observation, frame: &RecordClock) -> Vec<u8> {
    let mut head = [0; HEAD];
    head[0] = LAYOUT;
    head[1] = code(observation.job.state());
    let observed_ms = observation.observed_at.as_millisecond().saturating_add(frame.shift);
    head[2..].copy_from_slice(&observed_ms.to_be_bytes());
    seal(key, &head, &wire::write(observation, frame))
}

/// Parses an observation.
///
/// # Errors
/// Returns an error if the bytes are not those that were written, or contain a value that this version does not know.
pub(in crate::outbound) fn read(
    key: &JobKey,
    key_bytes: &[u8],
    bytes: &[u8],
    frame: &RecordClock,
) -> Result<DatedRecord, RecordError> {
    let (head, body) = open(key_bytes, bytes, HEAD)?;
    if head.first() != Some(&LAYOUT) {
        return Err(RecordError::Strange);
    }
    wire::read(key, body, frame).ok_or(RecordError::Strange)
}

/// Parses the head of a record. `None` when it is too short to have one.
pub(super) fn head(bytes: &[u8]) -> Option<RecordHead> {
    let state = JobState::ALL.into_iter().find(|state| Some(&code(*state)) == bytes.get(1));
    let observed = bytes.get(2..HEAD)?.try_into().ok()?;
    Some(RecordHead { state, observed_ms: i64::from_be_bytes(observed) })
}

/// Joins a head, a checksum and a body.
pub(super) fn seal(key: &[u8], head: &[u8], body: &[u8]) -> Vec<u8> {
    [head, &sum(key, head, body), body].concat()
}

/// Splits the result of [`seal`].
///
/// # Errors
/// Returns an error if it was changed.
pub(super) fn open<'a>(
    key: &[u8],
    bytes: &'a [u8],
    head: usize,
) -> Result<(&'a [u8], &'a [u8]), RecordError> {
    let (head, rest) = bytes.split_at_checked(head).ok_or(RecordError::Damaged)?;
    let (written, body) = rest.split_at_checked(SUM).ok_or(RecordError::Damaged)?;
    if written == sum(key, head, body) { Ok((head, body)) } else { Err(RecordError::Damaged) }
}

/// The age of an observation, in milliseconds; zero for one from the future of a clock that stepped back.
pub(super) fn age_ms(observed_ms: i64, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond().saturating_sub(observed_ms)).unwrap_or(0)
}

fn sum(key: &[u8], head: &[u8], body: &[u8]) -> [u8; SUM] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(key.len() as u64).to_be_bytes());
    context.update(key);
    context.update(head);
    context.update(body);
    let mut sum = [0; SUM];
    for (to, from) in sum.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    sum
}

/// The serialized state. A number is never reused with another meaning.
const fn code(state: JobState) -> u8 {
    match state {
        JobState::Queued => 1,
        JobState::Running => 2,
        JobState::Succeeded => 3,
        JobState::Failed => 4,
        JobState::Canceled => 5,
        JobState::Expired => 6,
        JobState::Unknown => 7,
    }
}

#[cfg(test)]
mod tests;
