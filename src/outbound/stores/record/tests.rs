//! Every record is read back unchanged; every altered record is rejected.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::history::{History, Transition};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::sightings::Sightings;
use crate::outbound::stores::testing::observation;

#[test]
fn encoded_keys_sort_like_keys() {
    let key = |source: &str, id: &str| JobKey {
        source: SourceName::parse(source).unwrap(),
        external_id: ExternalId::parse(id).unwrap(),
    };
    let mut keys =
        vec![key("a-b", "x"), key("a", "x"), key("a", "~"), key("a0", "-"), key("a", "x1"), key("a", "-")];
    let mut bytes: Vec<Vec<u8>> = keys.iter().map(key_bytes).collect();
    keys.sort();
    bytes.sort();
    assert_eq!(bytes.iter().map(|bytes| read_key(bytes).unwrap()).collect::<Vec<_>>(), keys);
}

/// Reads a record of this layout with this body.
fn read_body(body: &serde_json::Value) -> Result<DatedRecord, RecordError> {
    let key =
        JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
    let bytes = key_bytes(&key);
    let sealed = seal(&bytes, &[LAYOUT; HEAD], body.to_string().as_bytes());
    read(&key, &bytes, &sealed, &RecordClock::plain(1))
}

/// A record with more fields than this version writes.
fn with_more() -> serde_json::Value {
    json!({ "asked": "2026-01-01T00:00:00Z", "seen": "2026-01-01T00:00:01Z", "life": "failed", "colour": 7,
        "mindbridge": { "version": 3, "shape": [] } })
}

#[test]
fn unknown_fields_are_ignored() {
    let read_back = read_body(&with_more()).unwrap().observation;
    assert_eq!((read_back.job.counter(), read_back.job.state()), (Some(3), JobState::Failed));
}

#[test]
fn record_without_sightings_has_unknown_ones() {
    let read_back = read_body(&with_more()).unwrap().observation;
    assert_eq!(
        read_back.sightings,
        Sightings::default(),
        "an earlier version did not store when it was first observed"
    );
}

fn into(state: JobState, second: i64) -> Transition {
    let at = |second| Timestamp::from_second(second).unwrap();
    Transition::new(state, Some("NATIVE"), at(second), Some(at(second - 1)))
}

#[test]
fn record_without_transitions_has_the_one_into_its_state() {
    let mut body = with_more();
    assert!(read_body(&body).unwrap().observation.history.is_empty(), "its time is unknown");
    let since = "2025-12-31T23:00:00Z";
    body["since"] = json!(since);
    body["native"] = json!("ERROR");
    let history = read_body(&body).unwrap().observation.history;
    let expected = Transition::new(JobState::Failed, Some("ERROR"), since.parse().unwrap(), None);
    assert_eq!(history.transitions(), [expected]);
}

#[test]
fn transition_into_an_unknown_state_is_kept() {
    let mut body = with_more();
    body["past"] =
        json!([{ "life": "sleeping", "native": "ASLEEP", "seen": "2026-01-01T00:00:00Z", "more": 1 }]);
    let history = read_body(&body).unwrap().observation.history;
    let known: Vec<_> =
        history.transitions().iter().map(|one| (one.state, one.native_state.as_deref())).collect();
    assert_eq!(known, [(JobState::Unknown, Some("ASLEEP"))]);
}

#[test]
fn fifty_transitions_fit_into_a_record() {
    let native = "\u{1f980}".repeat(60);
    let transitions = (0..200).map(|second| {
        let state = if second % 2 == 0 { JobState::Queued } else { JobState::Running };
        Transition { native_state: Some(native.as_str().into()), ..into(state, second) }
    });
    let history = History::new(transitions.collect());
    let observation = Observation { history, ..read_body(&with_more()).unwrap().observation };
    let key = key_bytes(&observation.job.key);
    assert!(write(&key, &observation, &RecordClock::plain(1)).len() < 64 << 10);
}

#[test]
fn unknown_states_and_upstreams_are_refused() {
    let (requested_at, observed_at) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    let strange = json!({ "asked": requested_at, "seen": observed_at, "life": "sleeping", "mindbridge": {} });
    assert_eq!(read_body(&strange), Err(RecordError::Strange));
    let other = json!({ "asked": requested_at, "seen": observed_at, "life": "failed", "another": {} });
    assert_eq!(read_body(&other), Err(RecordError::Strange));
}

/// Earlier versions made MindBridge jobs EXPIRED by a 404, and had no rollbacks.
#[test]
fn legacy_expired_mindbridge_record_reads_as_last_seen_state() {
    let (requested_at, observed_at, changed) =
        ("2026-01-02T00:00:00Z", "2026-01-02T00:00:01Z", "2026-01-01T00:00:00Z");
    let cases = [
        (json!("IN_PROGRESS"), json!(changed), JobState::Running, changed),
        (json!("in_progress"), json!(null), JobState::Running, requested_at),
        (json!("HELD"), json!("2027-01-01T00:00:00Z"), JobState::Unknown, requested_at),
        (json!(null), json!(null), JobState::Unknown, requested_at),
    ];
    for (native, updated, state, at) in cases {
        let body = json!({ "asked": requested_at, "seen": observed_at, "life": "expired", "native": native,
            "updated": updated, "mindbridge": { "version": 3 } });
        let held = read_body(&body).unwrap().observation;
        assert_eq!((held.job.state(), held.rollbacks), (state, 0), "{native}");
        let at = at.parse().unwrap();
        assert_eq!((held.requested_at, held.observed_at), (at, at), "{native}");
    }
}

#[test]
fn expired_supermetrics_record_stays_expired() {
    let query = json!({ "asked": "2026-01-02T00:00:00Z", "seen": "2026-01-02T00:00:01Z", "life": "expired",
        "supermetrics": {} });
    assert_eq!(read_body(&query).unwrap().observation.job.state(), JobState::Expired);
}

proptest! {
    #[test]
    fn record_round_trips_and_alteration_is_detected(
        observation in observation("[a-c]", "[a-c]{1,2}"), discovered in any::<bool>(), place in any::<prop::sample::Index>(), bit in 0_u8..8,
        run in 1_u64.., shift in -100_000_000_i64..100_000_000, seconds in 1_i64..60
    ) {
        let past = (0..seconds).zip(JobState::ALL.into_iter().cycle()).map(|(second, state)| into(state, second));
        let sightings = Sightings { discovered, ..observation.sightings };
        let observation = Observation { sightings, history: History::new(past.collect()), ..observation };
        let key = observation.job.key.clone();
        let bytes = key_bytes(&key);
        let frame = RecordClock { run, shift, others: 0 };
        let mut record = write(&bytes, &observation, &frame);
        let head = head(&record).unwrap();
        prop_assert_eq!(head.state, Some(observation.job.state()));
        prop_assert_eq!(head.observed_ms, observation.observed_at.as_millisecond() + shift, "a time of day");
        let own = RecordClock { shift: 7, ..frame };
        let read_back = read(&key, &bytes, &record, &own).unwrap();
        prop_assert_eq!(read_back.observation.sightings, observation.sightings);
        prop_assert_eq!(&read_back.observation.history, &observation.history);
        let back = DatedRecord { observation: observation.clone(), is_own: true };
        prop_assert_eq!(read_back, back, "for any current correction of the clock");
        let other = RecordClock { run: run - 1, shift: 7, others: shift };
        let read_back = read(&key, &bytes, &record, &other).unwrap();
        prop_assert_eq!(read_back.observation.sightings, observation.sightings);
        prop_assert_eq!(&read_back.observation.history, &observation.history);
        prop_assert_eq!(read_back, DatedRecord { observation, is_own: false });
        let other = JobKey { external_id: ExternalId::parse("other").unwrap(), ..key.clone() };
        prop_assert_eq!(read(&other, &key_bytes(&other), &record, &frame), Err(RecordError::Damaged));
        prop_assert_eq!(read(&key, &bytes, &record[..place.index(record.len())], &frame), Err(RecordError::Damaged));
        let place = place.index(record.len());
        record[place] ^= 1 << bit;
        prop_assert_eq!(read(&key, &bytes, &record, &frame), Err(RecordError::Damaged));
    }
}
