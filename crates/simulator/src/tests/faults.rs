//! Faults whose whole effect is the answer: a table, without a socket.

use tokio::time::Instant;

use super::*;
use crate::{MadeUpAnswer, MadeUpBody, RetryAfter};

fn jobs() -> Scenario {
    scenario(
        vec![MindBridgeJob::new("a", &[(0, "COMPLETE")]), MindBridgeJob::new("b", &[(0, "COMPLETE")])],
        vec![SupermetricsJob::new("q", &[(0, "SUCCESS")])],
    )
}

#[tokio::test(start_paused = true)]
async fn each_fault_response_is_sent_as_scripted() {
    let (sm, mb) = (SimUpstream::Supermetrics, SimUpstream::MindBridge);
    let text = |content_type: &str, text: &str| MadeUpBody::Text {
        content_type: content_type.into(),
        text: text.into(),
    };
    // (upstream, fault, status, header and value, pointer and value; an empty pointer means the text)
    let table = [
        (
            sm,
            FaultKind::throttled(Some(RetryAfter::Seconds(7))),
            429,
            ("retry-after", "7"),
            ("/status", json!(429)),
        ),
        (
            mb,
            FaultKind::throttled(Some(RetryAfter::DateIn(90))),
            429,
            ("retry-after", "Thu, 01 Jan 2026 00:01:30 GMT"),
            ("/problems/0/severity", json!("ERROR")),
        ),
        (sm, FaultKind::throttled(None), 429, ("retry-after", ""), ("/title", json!("Too Many Requests"))),
        (mb, FaultKind::hour_limit(1200), 429, ("x-user-hour-limit-remaining", "1200"), ("", json!(""))),
        (
            sm,
            FaultKind::Answer(MadeUpAnswer {
                status: 429,
                retry_after: Some(RetryAfter::Text("soon".to_owned())),
                body: MadeUpBody::Html,
                ..MadeUpAnswer::default()
            }),
            429,
            ("retry-after", "soon"),
            ("", json!("<html><head><title>429</title></head><body><h1>429</h1></body></html>")),
        ),
        (mb, FaultKind::answer(503, MadeUpBody::Empty), 503, ("content-length", "0"), ("", json!(""))),
        (
            sm,
            FaultKind::problem(500, "internal-error"),
            500,
            ("content-type", "application/problem+json"),
            ("/type", json!("https://docs.supermetrics.com/problems/internal-error")),
        ),
        (
            sm,
            FaultKind::envelope(403, "LICENSE_EXPIRED"),
            403,
            ("content-type", "application/json"),
            ("/error/code", json!("LICENSE_EXPIRED")),
        ),
        (
            sm,
            FaultKind::envelope(200, "QUERY_TOO_LARGE"),
            200,
            ("content-type", "application/json"),
            ("/error/message", json!("QUERY_TOO_LARGE")),
        ),
        (
            mb,
            FaultKind::Redirect { to: "https://other.example/".to_owned() },
            302,
            ("location", "https://other.example/"),
            ("", json!("")),
        ),
        (
            mb,
            FaultKind::answer(200, text("application/json", "{\"version\":1e400}")),
            200,
            ("content-type", "application/json"),
            ("", json!("{\"version\":1e400}")),
        ),
    ];
    for (upstream, kind, status, (header, value), (pointer, found)) in table {
        let fixture = SimulatorFixture::new(jobs());
        let name = format!("{kind:?}");
        fixture.handle.push_fault(SimFault::next(upstream, 1, kind));
        let send = async || match upstream {
            SimUpstream::MindBridge => fixture.one("a").await,
            SimUpstream::Supermetrics => fixture.status("q", 0, 0).await,
        };
        let seen = send().await;
        assert_eq!((seen.status, seen.header(header)), (status, value), "{name}");
        let body = if pointer.is_empty() { json!(seen.text) } else { seen.at(pointer) };
        assert_eq!(body, found, "{name}");
        assert_eq!(send().await.status, 200, "{name} has ended");
        let faults: Vec<_> = fixture.handle.record().iter().map(|request| request.fault.is_some()).collect();
        assert_eq!(faults, [true, false], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn regular_responses_are_modified_as_scripted() {
    let fixture = SimulatorFixture::new(jobs());
    let handle = &fixture.handle;
    let fault = |upstream, kind| handle.push_fault(SimFault::next(upstream, 1, kind));
    let mb = SimUpstream::MindBridge;
    fault(mb, FaultKind::set("/id", json!({})));
    assert_eq!(fixture.one("a").await.at("/id"), json!({}));
    fault(mb, FaultKind::remove("/version"));
    assert!(fixture.one("a").await.json().get("version").is_none());
    fault(mb, FaultKind::set("/version", json!(i64::MAX)));
    assert_eq!(fixture.one("a").await.at("/version"), i64::MAX);
    fault(mb, FaultKind::Omit { ids: vec!["a".to_owned()] });
    let filter = json!({"id": {"$in": ["a", "b"]}});
    assert_eq!(ids(&fixture.query("?size=9", &filter).await), ["b"]);
    fault(mb, FaultKind::PageSize { size: 1 });
    let page = fixture.query("?size=9", &filter).await;
    assert_eq!((ids(&page), page.at("/totalPages")), (vec!["a".to_owned()], json!(2)));
    fault(SimUpstream::Supermetrics, FaultKind::remove("/data"));
    assert!(fixture.status("q", 0, 0).await.json().get("data").is_none());
}

#[tokio::test(start_paused = true)]
async fn credential_is_echoed_as_scripted() {
    let fixture = SimulatorFixture::new(jobs());
    let fault = |upstream, kind| fixture.handle.push_fault(SimFault::next(upstream, 1, kind));
    for status in [200, 401] {
        fault(SimUpstream::MindBridge, FaultKind::EchoCredential { status });
        let echoed = fixture.one("a").await;
        assert_eq!((echoed.status, echoed.text.contains(TOKEN)), (status, true));
        fault(SimUpstream::Supermetrics, FaultKind::EchoCredential { status });
        let echoed = fixture.status("q", 0, 0).await;
        assert_eq!((echoed.status, echoed.text.contains(KEY)), (status, true));
    }
}

#[tokio::test(start_paused = true)]
async fn refused_query_leaves_single_reads_available() {
    let fixture = SimulatorFixture::new(jobs());
    let filter = json!({"id": {"$in": ["a", "b"]}});
    for status in [403, 404, 405] {
        fixture.world.lock().scenario.mindbridge.refuse_query = Some(status);
        assert_eq!(fixture.query("", &filter).await.status, status);
        assert_eq!(fixture.one("a").await.status, 200, "only the query is rejected");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_responses_take_the_scripted_time() {
    let fixture = SimulatorFixture::new(jobs());
    let whole = fixture.one("a").await.text;
    let pieces = u32::try_from(whole.len().div_ceil(10)).unwrap();
    for (kind, expected) in [
        (FaultKind::SlowHeaders { delay: Duration::from_secs(40) }, Duration::from_secs(40)),
        (FaultKind::SlowBody { chunk: 10, every: Duration::from_secs(2) }, Duration::from_secs(2) * pieces),
    ] {
        fixture.handle.push_fault(SimFault::next(SimUpstream::MindBridge, 1, kind.clone()));
        let before = Instant::now();
        assert_eq!(fixture.one("a").await.text, whole, "{kind:?}");
        // The timer wheel counts in milliseconds.
        let late = before.elapsed().checked_sub(expected).expect("not too early");
        assert!(late < Duration::from_millis(u64::from(pieces) * 2), "{kind:?}: {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn exceeded_rate_limit_returns_429_for_a_second() {
    let mut scenario = jobs();
    scenario.mindbridge.limit_per_second = Some(3);
    let fixture = SimulatorFixture::new(scenario);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(fixture.one("a").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(fixture.one("a").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn exceeded_hourly_limit_returns_429_for_an_hour() {
    let mut scenario = jobs();
    scenario.supermetrics.hourly_limit = Some(2);
    let fixture = SimulatorFixture::new(scenario);
    for (status, remaining) in [(200, "1"), (200, "0"), (429, "0")] {
        let seen = fixture.status("q", 0, 0).await;
        let limits = (seen.header("x-ratelimit-limit"), seen.header("x-ratelimit-remaining"));
        assert_eq!((seen.status, limits), (status, ("2", remaining)));
    }
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(fixture.status("q", 0, 0).await.header("x-ratelimit-remaining"), "1");
}
