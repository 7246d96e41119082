//! What the registry promises, without any transport.

use std::cell::RefCell;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::*;
use crate::domain::principal::Pass;

fn streams(settings: StreamSettings) -> Streams {
    Streams::new(settings, drop)
}

fn named(name: &'static str) -> Principal {
    Principal::new(name, [])
}

fn few() -> StreamSettings {
    StreamSettings { max_streams_per_client: 2, max_operations_per_client: 3, ..StreamSettings::default() }
}

#[test]
fn a_client_has_its_share_and_what_is_dropped_comes_back() {
    let streams = streams(few());
    let open = |client: Option<&'static str>| streams.open(Transport::Sse, client.map(named).as_ref());
    let first = open(Some("ui")).unwrap();
    let mut late = open(None).unwrap();
    late.claim(&named("ui"), None).unwrap();
    assert_eq!(open(Some("ui")).unwrap_err(), Full::Client);
    assert!(open(Some("other")).is_ok(), "another client is not affected");

    let operations: Vec<_> = [&first, &first, &late].map(|seat| seat.operation().unwrap()).into();
    assert_eq!(late.operation().unwrap_err(), Full::Client);
    drop(operations);
    assert!(late.operation().is_ok());

    let mut third = open(None).unwrap();
    assert_eq!(third.operation().unwrap_err(), Full::Client, "nobody is not a client");
    assert_eq!(third.claim(&named("ui"), None).unwrap_err(), Full::Client);
    assert_eq!(streams.counts(), Counts { sse: 3, ..Counts::default() });
    first.leave(EndReason::Completed);
    third.claim(&named("ui"), None).unwrap();
    drop((late, third));
    assert_eq!(streams.counts(), Counts::default());
    assert!(streams.0.lock().clients.is_empty(), "a client without streams costs nothing");
}

#[test]
fn who_does_not_stand_any_more_is_ended_unless_it_came_in_anew_meanwhile() {
    let streams = streams(StreamSettings::default());
    let with = |fingerprint| {
        named("renews").holding(Pass { fingerprint: Some([fingerprint; 32]), ..Pass::default() })
    };
    let mut theirs = streams.open(Transport::WebSocket, None).unwrap();
    theirs.claim(&named("gone"), None).unwrap();
    let mut other = streams.open(Transport::WebSocket, Some(&named("stays"))).unwrap();
    let mut nobody = streams.open(Transport::WebSocket, None).unwrap();
    let renewing = RefCell::new(streams.open(Transport::WebSocket, Some(&with(1))).unwrap());
    let ended = streams.review(|holder| {
        if *holder == with(1) {
            renewing.borrow_mut().claim(&with(2), None).unwrap();
        }
        holder.name() == "stays"
    });
    assert_eq!(ended, 1);
    assert_eq!(theirs.told().now_or_never(), Some(EndReason::Revoked));
    for goes_on in [&mut other, &mut nobody, &mut *renewing.borrow_mut()] {
        assert_eq!(goes_on.told().now_or_never(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_seat_lasts_as_long_as_what_was_last_presented_but_never_beyond_its_age() {
    let streams = streams(StreamSettings::default());
    let mut seat = streams.open(Transport::WebSocket, None).unwrap();
    let (age, reason) = seat.ends();
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
        seat.claim(&named("ui"), left.map(Duration::from_secs)).unwrap();
        assert_eq!(seat.ends(), ends, "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ages_are_spread_around_the_maximum() {
    let streams = streams(StreamSettings { max_streams_per_client: 1000, ..StreamSettings::default() });
    let now = Instant::now();
    let seats: Vec<_> =
        (0..1000).map(|_| streams.open(Transport::Sse, Some(&named("ui"))).unwrap()).collect();
    let minutes: Vec<u64> = seats.iter().map(|seat| (seat.ends().0 - now).as_secs() / 60).collect();
    assert!(minutes.iter().all(|minutes| (48..=72).contains(minutes)));
    assert!((50..=70).all(|minute| minutes.contains(&minute)), "no minute is left out");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_each_once_spread_over_the_window_and_lets_nobody_in() {
    for (count, window, took) in [
        (1, 10_000, 0..=100),
        (50, 10_000, 4_900..=5_000),
        (100, 10_000, 9_900..=10_000),
        (1000, 1_000, 999..=1_000),
    ] {
        let streams = streams(StreamSettings::default());
        let mut seats: Vec<_> =
            (0..count).map(|_| streams.open(Transport::Sse, Some(&named("ui"))).unwrap()).collect();
        let start = Instant::now();
        let told = seats.iter_mut().map(async |seat| (seat.told().await, start.elapsed().as_millis()));
        let told = told.collect::<FuturesUnordered<_>>().collect::<Vec<_>>();
        let window = Duration::from_millis(window);
        let (told, ()) = tokio::join!(told, streams.drain(window));
        assert!(took.contains(&start.elapsed().as_millis()), "{count}: {:?}", start.elapsed());
        assert!(told.iter().all(|(reason, _)| *reason == EndReason::Drained));
        let half = told.iter().filter(|(_, at)| *at <= start.elapsed().as_millis() / 2).count();
        assert!(
            count == 1 || half.abs_diff(count / 2) <= count / 20 + 1,
            "{count}: {half} in the first half"
        );
        assert_eq!(streams.open(Transport::Sse, None).unwrap_err(), Full::Draining);
    }
}
