//! The guarantees of the registry, without any transport.

use std::cell::RefCell;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::*;
use crate::domain::principal::CredentialInfo;

fn streams(settings: StreamSettings) -> StreamRegistry {
    StreamRegistry::new(settings, drop)
}

fn named(name: &'static str) -> Principal {
    Principal::new(name, [])
}

fn few() -> StreamSettings {
    StreamSettings { max_streams_per_client: 2, max_operations_per_client: 3, ..StreamSettings::default() }
}

fn open(streams: &StreamRegistry, client: Option<&'static str>) -> Result<StreamGuard, StreamLimitReached> {
    streams.open(Transport::Sse, client.map(named).as_ref())
}

/// As many streams as the client `ui` may have; it claims the second one after it is open.
fn full(streams: &StreamRegistry) -> (StreamGuard, StreamGuard) {
    let first = open(streams, Some("ui")).unwrap();
    let mut late = open(streams, None).unwrap();
    late.claim(&named("ui"), None).unwrap();
    (first, late)
}

#[test]
fn stream_limit_is_per_client() {
    let streams = streams(few());
    let _full = full(&streams);
    assert_eq!(open(&streams, Some("ui")).unwrap_err(), StreamLimitReached::Client);
    let mut third = open(&streams, None).unwrap();
    assert_eq!(third.claim(&named("ui"), None).unwrap_err(), StreamLimitReached::Client);
    assert!(open(&streams, Some("other")).is_ok(), "another client is not affected");
}

#[test]
fn operation_limit_is_shared_by_the_streams_of_a_client() {
    let streams = streams(few());
    let (first, late) = full(&streams);
    let operations: Vec<_> = [&first, &first, &late].map(|guard| guard.operation().unwrap()).into();
    assert_eq!(late.operation().unwrap_err(), StreamLimitReached::Client);
    drop(operations);
    assert!(late.operation().is_ok());
}

#[test]
fn anonymous_stream_runs_no_operation() {
    let streams = streams(few());
    let anonymous = open(&streams, None).unwrap();
    assert_eq!(anonymous.operation().unwrap_err(), StreamLimitReached::Client);
}

#[test]
fn ended_stream_is_not_counted() {
    let streams = streams(few());
    let (first, late) = full(&streams);
    let mut third = open(&streams, None).unwrap();
    assert_eq!(streams.counts(), StreamCounts { sse: 3, ..StreamCounts::default() });
    first.leave(EndReason::Completed);
    third.claim(&named("ui"), None).unwrap();
    drop((late, third));
    assert_eq!(streams.counts(), StreamCounts::default());
    assert!(streams.0.lock().clients.is_empty(), "a client without streams uses no memory");
}

#[test]
fn review_ends_revoked_streams_unless_renewed_meanwhile() {
    let streams = streams(StreamSettings::default());
    let with = |fingerprint| {
        named("renews").with_credential(CredentialInfo {
            fingerprint: Some([fingerprint; 32]),
            ..CredentialInfo::default()
        })
    };
    let mut theirs = streams.open(Transport::WebSocket, None).unwrap();
    theirs.claim(&named("gone"), None).unwrap();
    let mut other = streams.open(Transport::WebSocket, Some(&named("stays"))).unwrap();
    let mut anonymous = streams.open(Transport::WebSocket, None).unwrap();
    let renewing = RefCell::new(streams.open(Transport::WebSocket, Some(&with(1))).unwrap());
    let ended = streams.review(|holder| {
        if *holder == with(1) {
            renewing.borrow_mut().claim(&with(2), None).unwrap();
        }
        holder.name() == "stays"
    });
    assert_eq!(ended, 1);
    assert_eq!(theirs.end_reason().now_or_never(), Some(EndReason::Revoked));
    for goes_on in [&mut other, &mut anonymous, &mut *renewing.borrow_mut()] {
        assert_eq!(goes_on.end_reason().now_or_never(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_credential_expiry_or_maximum_age() {
    let streams = streams(StreamSettings::default());
    let mut guard = streams.open(Transport::WebSocket, None).unwrap();
    let (age, reason) = guard.ends();
    assert_eq!(reason, EndReason::TooOld);
    let now = Instant::now();
    for (left, ends) in [
        (Some(60), (now + Duration::from_mins(1), EndReason::CredentialExpired)),
        (Some(5), (now + Duration::from_secs(5), EndReason::CredentialExpired)),
        (Some(600), (now + Duration::from_mins(10), EndReason::CredentialExpired)),
        (Some(0), (now, EndReason::CredentialExpired)),
        (Some(1_000_000), (age, EndReason::TooOld)),
        (Some(u64::MAX), (age, EndReason::TooOld)),
        (None, (age, EndReason::TooOld)),
    ] {
        guard.claim(&named("ui"), left.map(Duration::from_secs)).unwrap();
        assert_eq!(guard.ends(), ends, "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ages_are_jittered_around_the_maximum() {
    let streams = streams(StreamSettings { max_streams_per_client: 1000, ..StreamSettings::default() });
    let now = Instant::now();
    let guards: Vec<_> =
        (0..1000).map(|_| streams.open(Transport::Sse, Some(&named("ui"))).unwrap()).collect();
    let minutes: Vec<u64> = guards.iter().map(|guard| (guard.ends().0 - now).as_secs() / 60).collect();
    assert!(minutes.iter().all(|minutes| (48..=72).contains(minutes)));
    assert!((50..=70).all(|minute| minutes.contains(&minute)), "every minute is covered");
}

#[tokio::test(start_paused = true)]
async fn drain_closes_streams_spread_over_the_window() {
    for (count, window, took) in [
        (1, 10_000, 0..=100),
        (50, 10_000, 4_900..=5_000),
        (100, 10_000, 9_900..=10_000),
        (1000, 1_000, 999..=1_000),
    ] {
        let streams = streams(StreamSettings::default());
        let mut guards: Vec<_> =
            (0..count).map(|_| streams.open(Transport::Sse, Some(&named("ui"))).unwrap()).collect();
        let start = Instant::now();
        let reasons =
            guards.iter_mut().map(async |guard| (guard.end_reason().await, start.elapsed().as_millis()));
        let reasons = reasons.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
        let window = Duration::from_millis(window);
        let (reasons, ()) = tokio::join!(reasons, streams.drain(window));
        assert!(took.contains(&start.elapsed().as_millis()), "{count}: {:?}", start.elapsed());
        assert!(reasons.iter().all(|(reason, _)| *reason == EndReason::Drained));
        let half = reasons.iter().filter(|(_, at)| *at <= start.elapsed().as_millis() / 2).count();
        assert!(
            count == 1 || half.abs_diff(count / 2) <= count / 20 + 1,
            "{count}: {half} in the first half"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn draining_registry_opens_no_stream() {
    let streams = streams(StreamSettings::default());
    streams.drain(Duration::from_secs(10)).await;
    assert_eq!(open(&streams, None).unwrap_err(), StreamLimitReached::Draining);
}
