//! What the registry promises, without any transport.

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::*;

fn streams(settings: StreamSettings) -> Streams {
    Streams::new(settings, drop)
}

fn few() -> StreamSettings {
    StreamSettings { max_streams_per_client: 2, max_operations_per_client: 3, ..StreamSettings::default() }
}

#[test]
fn a_client_has_its_share_and_what_is_dropped_comes_back() {
    let streams = streams(few());
    let open = |client| streams.open(Transport::Sse, client);
    let first = open(Some("ui")).unwrap();
    let mut late = open(None).unwrap();
    late.claim("ui").unwrap();
    assert_eq!(open(Some("ui")).unwrap_err(), Full::Client);
    assert!(open(Some("other")).is_ok(), "another client is not affected");

    let operations: Vec<_> = [&first, &first, &late].map(|seat| seat.operation().unwrap()).into();
    assert_eq!(late.operation().unwrap_err(), Full::Client);
    drop(operations);
    assert!(late.operation().is_ok());

    let mut third = open(None).unwrap();
    assert_eq!(third.operation().unwrap_err(), Full::Client, "nobody is not a client");
    assert_eq!(third.claim("ui").unwrap_err(), Full::Client);
    assert_eq!(streams.counts(), Counts { sse: 3, ..Counts::default() });
    first.leave(EndReason::Completed);
    third.claim("ui").unwrap();
    drop((late, third));
    assert_eq!(streams.counts(), Counts::default());
    assert!(streams.0.lock().clients.is_empty(), "a client without streams costs nothing");
}

#[test]
fn one_client_can_be_ended_and_an_expiry_only_shortens_a_life() {
    let streams = streams(StreamSettings::default());
    let mut theirs = streams.open(Transport::WebSocket, None).unwrap();
    theirs.claim("gone").unwrap();
    let mut other = streams.open(Transport::WebSocket, Some("stays")).unwrap();
    streams.end_client("gone", EndReason::Revoked);
    assert_eq!(theirs.told().now_or_never(), Some(EndReason::Revoked));
    assert_eq!(other.told().now_or_never(), None);
    let (age, _) = other.ends();
    other.end_by(age + Duration::from_secs(1), EndReason::CredentialExpired);
    assert_eq!(other.ends(), (age, EndReason::TooOld));
    let sooner = age.checked_sub(Duration::from_secs(1)).unwrap();
    other.end_by(sooner, EndReason::CredentialExpired);
    assert_eq!(other.ends(), (sooner, EndReason::CredentialExpired));
}

#[tokio::test(start_paused = true)]
async fn ages_are_spread_around_the_maximum() {
    let streams = streams(StreamSettings { max_streams_per_client: 1000, ..StreamSettings::default() });
    let now = Instant::now();
    let seats: Vec<_> = (0..1000).map(|_| streams.open(Transport::Sse, Some("ui")).unwrap()).collect();
    let minutes: Vec<u64> = seats.iter().map(|seat| (seat.ends().0 - now).as_secs() / 60).collect();
    assert!(minutes.iter().all(|minutes| (48..=72).contains(minutes)));
    assert!((50..=70).all(|minute| minutes.contains(&minute)), "no minute is left out");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_each_once_spread_over_the_window_and_lets_nobody_in() {
    for (count, window, took) in
        [(1, 10_000, 0..=20), (100, 10_000, 1_980..=2_000), (1000, 1_000, 999..=1_000)]
    {
        let streams = streams(StreamSettings::default());
        let mut seats: Vec<_> =
            (0..count).map(|_| streams.open(Transport::Sse, Some("ui")).unwrap()).collect();
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
