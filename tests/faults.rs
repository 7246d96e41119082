//! The fault table: whatever an upstream does, exactly one outcome, by the two descriptions of the upstreams.
//!
//! Each row is played for a new job, for another one right after, for one observed before and for a completed one, over
//! real sockets; the columns are the answer for the first and the number of requests of the first two.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use jobgate_simulator::{
    Edit, Endpoint, FaultKind, MadeUpAnswer, MadeUpBody, MindBridgeJob, RetryAfter, SimFault, SimUpstream,
    SupermetricsJob,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::server::{Rig, Setup, external};

pub(crate) mod table;

use table::{Row, mindbridge, mindbridge_query, supermetrics};

const MIND: SimUpstream = SimUpstream::MindBridge;
const METRICS: SimUpstream = SimUpstream::Supermetrics;

const fn source(upstream: SimUpstream) -> &'static str {
    match upstream {
        MIND => "mind",
        METRICS => "metrics",
    }
}

/// Both upstreams with the same jobs: four running and one completed.
fn setup() -> Setup {
    let lives = [("new", false), ("newer", false), ("run", false), ("run2", false), ("done", true)];
    let mind =
        lives.map(|(id, done)| MindBridgeJob::new(id, &[(0, if done { "COMPLETE" } else { "IN_PROGRESS" })]));
    let metrics =
        lives.map(|(id, done)| SupermetricsJob::new(id, &[(0, if done { "SUCCESS" } else { "RUNNING" })]));
    // a machine without CPU time needs long for milliseconds of work
    let source = "status_timeout: 4m, budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }";
    let rest = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 5m }".to_owned();
    Setup { source, rest, ..Setup::with(mind.into(), metrics.into()) }
}

/// The pause in the name of an outcome.
fn pause(outcome: &str) -> Option<Duration> {
    let seconds = outcome.strip_prefix("THROTTLED after ")?.strip_suffix('s')?;
    seconds.parse().ok().map(Duration::from_secs)
}

async fn play(upstream: SimUpstream, row: Row) {
    let Row { what, fault, outcome, calls, hurried } = row;
    let mut setup = setup();
    if hurried {
        setup.source =
            "status_timeout: 6s, budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }";
    }
    let rig = setup.start().await;
    let name = source(upstream);
    assert_eq!(rig.lookup(name, "run").await, "RUNNING", "{what}");
    assert_eq!(rig.lookup(name, "done").await, "SUCCEEDED", "{what}");
    rig.upstreams.push_fault(SimFault::always(upstream, fault));

    let (before, began) = (rig.calls(upstream), Instant::now());
    assert_eq!(rig.lookup(name, "new").await, outcome, "{name}: {what}");
    let first = rig.calls(upstream) - before;
    rig.lookup(name, "newer").await;
    let second = rig.calls(upstream) - before - first;
    // a pause of a second may be over at the second query: then a call is allowed
    let over = pause(outcome).is_some_and(|pause| began.elapsed() >= pause);
    let as_expected = first == calls.0 && (over || calls.1.contains(&second));
    assert!(as_expected, "{name}: {what}: {first} and {second} requests for two jobs, expected {calls:?}");

    let code = outcome.split([' ', ',']).next().unwrap();
    let is_problem = rig.upstreams.record().len() > 2 && !STATES.contains(&code);
    let expected = match code {
        "NOT_FOUND" if upstream == METRICS => "EXPIRED".to_owned(),
        // MindBridge documents no expiry: an observed job keeps its state
        "NOT_FOUND" => "RUNNING, stale: BAD_ANSWER".to_owned(),
        code if is_problem => format!("RUNNING, stale: {code}"),
        _ => outcome.to_owned(),
    };
    assert_eq!(
        rig.lookup_within(name, "run", Some("0ms")).await,
        expected,
        "{name}: {what}: an observed job"
    );
    let before = rig.calls(upstream);
    assert_eq!(
        rig.lookup_within(name, "done", Some("0ms")).await,
        "SUCCEEDED",
        "{name}: {what}: a completed job"
    );
    assert_eq!(rig.calls(upstream), before, "{name}: {what}: a completed job is not fetched");

    let other = if upstream == MIND { METRICS } else { MIND };
    assert_eq!(rig.lookup(source(other), "run").await, "RUNNING", "{name}: {what}: the other source");
    assert_eq!(rig.calls(other), 1, "{name}: {what}: the other source");
    rig.assert_well_behaved();
}

const STATES: [&str; 7] = ["QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED", "EXPIRED", "UNKNOWN"];

async fn play_all(upstream: SimUpstream, rows: Vec<Row>) {
    assert!(rows.len() > 40, "the table has its rows");
    // The rows that measure time run alone, after the others.
    let (hurried, long_timeout): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.hurried);
    for rows in [long_timeout, hurried] {
        futures_util::stream::iter(rows)
            .map(|row| play(upstream, row))
            .buffer_unordered(6)
            .collect::<Vec<()>>()
            .await;
    }
}

#[tokio::test]
async fn each_mindbridge_fault_yields_its_expected_outcome() {
    play_all(MIND, mindbridge()).await;
}

#[tokio::test]
async fn each_supermetrics_fault_yields_its_expected_outcome() {
    play_all(METRICS, supermetrics()).await;
}

#[tokio::test]
async fn each_query_endpoint_fault_yields_its_expected_outcome() {
    for (what, fault, expected, calls) in mindbridge_query() {
        let rig = setup().start().await;
        rig.upstreams.push_fault(SimFault::always(MIND, fault).on(Endpoint::Query));
        let refs = ["new", "newer", "nobody"].map(|id| external("mind", id));
        assert_eq!(rig.lookup_all(&refs).await, expected, "{what}");
        let as_expected = (rig.requests_to(Endpoint::Query).len(), rig.requests_to(Endpoint::One).len());
        assert_eq!(as_expected, calls, "{what}: requests to the query endpoint, and for one job");
        rig.assert_well_behaved();
    }
}

/// One or two failures before an answer are retried, and the caller does not notice.
#[tokio::test]
async fn two_transient_faults_are_recovered_by_retries() {
    let kinds = [
        FaultKind::html(502),
        FaultKind::answer(503, MadeUpBody::Empty),
        FaultKind::CloseBeforeHeaders,
        FaultKind::TruncatedBody,
    ];
    let cases = [MIND, METRICS].into_iter().flat_map(|upstream| {
        let of = move |kind: FaultKind| [1, 2].map(|times| SimFault::next(upstream, times, kind.clone()));
        kinds.clone().into_iter().flat_map(of)
    });
    let play = async |fault: SimFault| {
        let (upstream, times) = (fault.upstream, fault.times.unwrap() as usize);
        let what = format!("{fault:?}");
        let rig = setup().start().await;
        rig.upstreams.push_fault(fault);
        assert_eq!(rig.lookup(source(upstream), "new").await, "RUNNING", "{what}");
        assert_eq!(rig.calls(upstream), 1 + times, "{what}");
    };
    join_all(cases.map(play)).await;
}

/// `docs/adr/0005-one-upstream-http-client.md`: a redirect would send the key, and a `Referer` with it, to another
/// origin.
#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        for upstream in [MIND, METRICS] {
            let rig = setup().start().await;
            let (here, there) = (rig.simulator.mindbridge_url(), rig.simulator.supermetrics_url());
            let (to, other) = if upstream == MIND { (there, METRICS) } else { (here, MIND) };
            let headers = BTreeMap::from([("location".to_owned(), format!("{to}/elsewhere"))]);
            let answer = MadeUpAnswer { status, headers, ..MadeUpAnswer::default() };
            rig.upstreams.push_fault(SimFault::always(upstream, FaultKind::Answer(answer)));
            assert_eq!(rig.lookup(source(upstream), "new").await, "BAD_ANSWER", "{status}");
            assert_eq!((rig.calls(upstream), rig.calls(other)), (1, 0), "{status}");
        }
    }
}

#[tokio::test]
async fn an_echoed_credential_is_masked_in_the_answer() {
    for form in ["bearer", "api_key"] {
        let rig = Setup { form, ..setup() }.start().await;
        for upstream in [MIND, METRICS] {
            rig.upstreams.push_fault(SimFault::always(upstream, FaultKind::EchoCredential { status: 200 }));
        }
        let query = "query($refs: [JobRef!]!) { jobs(refs: $refs) { ... on MindBridgeJob { error errorMessage } ... on SupermetricsJob { requestId } } }";
        let refs = [external("mind", "new"), external("metrics", "new")];
        let masked = "request with credential [redacted] was seen";
        let expected = json!([{ "error": masked, "errorMessage": masked }, { "requestId": masked }]);
        assert_eq!(rig.execute(query, json!({ "refs": refs })).await.data()["jobs"], expected, "{form}");
    }
}

/// The hourly counter of Supermetrics at 0 pauses the source although the answer itself is valid.
#[tokio::test]
async fn an_exhausted_hourly_limit_pauses_the_source() {
    let headers = BTreeMap::from([("x-ratelimit-remaining".to_owned(), "0".to_owned())]);
    let text = r#"{"meta":{"status_code":"RUNNING"},"data":[]}"#.to_owned();
    let body = MadeUpBody::Text { content_type: "application/json".to_owned(), text };
    let rig = setup().start().await;
    rig.upstreams.push_fault(SimFault::next(
        METRICS,
        1,
        FaultKind::Answer(MadeUpAnswer { status: 200, headers, retry_after: None, body }),
    ));
    assert_eq!(rig.lookup("metrics", "new").await, "RUNNING");
    // the rest of a minute
    let left = pause(&rig.lookup("metrics", "newer").await).unwrap();
    assert!(left > Duration::from_secs(30) && left <= Duration::from_mins(1), "{left:?}");
    assert_eq!(rig.calls(METRICS), 1);
    assert_eq!(rig.lookup("mind", "new").await, "RUNNING");
}

/// The health of the sources follows from the faults, and contains the time of the next call.
#[tokio::test]
async fn source_health_reflects_upstream_faults() {
    let query = "{ sources { name health throttledUntil budget { inFlight } } }";
    let health = async |rig: &Rig| {
        let sources = rig.execute(query, Value::Null).await.data()["sources"].take();
        let all = sources.as_array().unwrap().clone();
        all.into_iter()
            .map(|it| (it["name"].clone(), it["health"].clone(), it["throttledUntil"].is_string()))
            .collect::<Vec<_>>()
    };
    let health_of = |health: &str, until: bool| {
        vec![(json!("metrics"), json!("UNKNOWN"), false), (json!("mind"), json!(health), until)]
    };
    let cases = [
        (FaultKind::throttled(Some(RetryAfter::Seconds(3_600))), "THROTTLED", true),
        (FaultKind::problem(401, "UNAUTHORIZED"), "CREDENTIAL_REJECTED", true),
        (FaultKind::html(502), "UNAVAILABLE", false),
        (FaultKind::html(200), "DEGRADED", false),
        (FaultKind::html(403), "DEGRADED", false),
        (FaultKind::html(410), "DEGRADED", false),
        (FaultKind::Redirect { to: "/login".to_owned() }, "DEGRADED", false),
    ];
    for (fault, expected, until) in cases {
        let rig = setup().start().await;
        assert_eq!(health(&rig).await, health_of("UNKNOWN", false));
        rig.lookup("mind", "new").await;
        assert_eq!(health(&rig).await, health_of("HEALTHY", false));
        rig.upstreams.push_fault(SimFault::always(MIND, fault));
        rig.lookup("mind", "newer").await;
        assert_eq!(health(&rig).await, health_of(expected, until));
    }
}

/// An anomaly of one job is limited to it: the source is healthy once another job is read, and stays so.
#[tokio::test]
async fn one_faulty_job_does_not_keep_its_source_degraded() {
    let query = "{ sources { name health lastError { kind } } }";
    for (upstream, fault, kind) in [
        (MIND, FaultKind::html(403), "FOREIGN_ANSWER"),
        (MIND, FaultKind::set("/id", json!("another")), "BAD_ANSWER"),
        (METRICS, FaultKind::set("/meta/schedule_id", json!("another")), "BAD_ANSWER"),
    ] {
        let rig = setup().start().await;
        let name = source(upstream);
        rig.upstreams.push_fault(SimFault::always(upstream, fault).for_ids(&["new"]));
        rig.lookup(name, "new").await;
        for _ in 0..3 {
            assert_eq!(rig.lookup_within(name, "run", Some("0ms")).await, "RUNNING");
            assert_eq!(rig.lookup_within(name, "new", Some("0ms")).await, "BAD_ANSWER");
            let sources = rig.execute(query, Value::Null).await.data()["sources"].take();
            let of = sources.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
            let expected = json!({ "name": name, "health": "HEALTHY", "lastError": { "kind": kind } });
            assert_eq!(*of, expected);
        }
    }
}

/// The source reports why an answer was rejected, with the upstream's message, and without our secrets.
#[tokio::test]
async fn last_error_reports_the_upstream_error() {
    let query = "{ sources { name lastError { at kind message } } }";
    let problem = MadeUpBody::Problem { code: None, detail: Some("the id is too long".to_owned()) };
    let cases = [
        (FaultKind::answer(400, problem), "BAD_ANSWER", "too long"),
        (
            FaultKind::Redirect { to: "https://sso.example/login?state=x".to_owned() },
            "REDIRECT",
            "\"https://sso.example/login\"",
        ),
        (FaultKind::html(200), "FOREIGN_ANSWER", "JSON"),
        (FaultKind::html(502), "SERVER_ERROR", "502"),
        (FaultKind::OversizedBody { bytes: 2 << 20 }, "TOO_LARGE", "larger than"),
        (FaultKind::EchoCredential { status: 401 }, "CREDENTIAL_REJECTED", "[redacted]"),
        (FaultKind::throttled(Some(RetryAfter::Seconds(7))), "THROTTLED", "429"),
        (FaultKind::CloseBeforeHeaders, "BROKEN", "broke off"),
    ];
    for (fault, kind, health_of) in cases {
        for upstream in [MIND, METRICS] {
            let rig = setup().start().await;
            rig.upstreams.push_fault(SimFault::always(upstream, fault.clone()));
            rig.lookup(source(upstream), "new").await;
            let sources = rig.execute(query, Value::Null).await.data()["sources"].take();
            let of = sources.as_array().unwrap().iter().find(|it| it["name"] == source(upstream)).unwrap();
            let error = &of["lastError"];
            assert_eq!(error["kind"], kind, "{fault:?}: {error}");
            assert!(error["message"].as_str().unwrap().contains(health_of), "{fault:?}: {error}");
            assert!(error["at"].is_string());
        }
    }
}

/// Jobs with a text of so many bytes, in a batch and alone.
fn long_text(bytes: usize) -> FaultKind {
    let text = json!("x".repeat(bytes));
    let places = ["/content/*/errorMessage", "/errorMessage"];
    let set = places.map(|place| (place.to_owned(), text.clone())).into_iter().collect();
    FaultKind::Edit(Edit { set, remove: Vec::new() })
}

/// One job that makes the answer of its batch unreadable costs the others nothing, and adds few calls to the next read.
#[tokio::test]
async fn a_job_that_breaks_its_batch_is_fetched_alone() {
    let names: Vec<String> = (0..50).map(|number| format!("job{number}")).collect();
    let kinds = [
        FaultKind::OversizedBody { bytes: 2 << 20 },
        FaultKind::MalformedJson,
        FaultKind::problem(400, "BAD_REQUEST"),
        FaultKind::problem(413, "TOO_LARGE"),
        FaultKind::problem(422, "UNPROCESSABLE"),
        long_text(1_200_000),
    ];
    let query = "query($refs: [JobRef!]!) { jobs(refs: $refs, maxStaleness: \"0ms\") { __typename ... on Job { state } ... on JobProblem { code } } }";
    let refs: Vec<Value> = names.iter().map(|id| external("mind", id)).collect();
    for (fault, everywhere) in kinds.into_iter().flat_map(|fault| [(fault.clone(), true), (fault, false)]) {
        let mut setup = setup();
        setup.scenario.mindbridge.jobs =
            names.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).collect();
        let rig = setup.start().await;
        let spoil = SimFault::always(MIND, fault.clone()).for_ids(&["job17"]);
        rig.upstreams.push_fault(if everywhere { spoil } else { spoil.on(Endpoint::Query) });
        // how often a batch is halved depends on the position of the job in it
        let mut most = 13;
        for reads in [1, 2] {
            let jobs = rig.execute(query, json!({ "refs": refs })).await.data()["jobs"].take();
            for (name, job) in names.iter().zip(jobs.as_array().unwrap()) {
                if name == "job17" && everywhere {
                    assert_ne!(job["state"], "UNKNOWN", "{fault:?}: {job}");
                } else {
                    assert_eq!(job["state"], "RUNNING", "{fault:?} {name}: {job}");
                }
            }
            let as_expected = (rig.requests_to(Endpoint::Query).len(), rig.requests_to(Endpoint::One).len());
            assert!(
                as_expected.0 <= most && as_expected.1 == reads,
                "{fault:?}: {as_expected:?}, at most {most} and {reads}"
            );
            most = as_expected.0 + 1;
        }
    }
}

/// An observed job that disappears has expired where the upstream documents that it removes jobs, and keeps its state
/// where it does not; a completed one outlives its removal upstream.
#[tokio::test]
async fn only_a_documented_expiry_makes_a_job_expired() {
    for status in [400, 404] {
        let mut setup = setup();
        setup.scenario.supermetrics.not_found_status = status;
        let rig = setup.start().await;
        for upstream in [MIND, METRICS] {
            let name = source(upstream);
            rig.lookup(name, "run").await;
            rig.lookup(name, "done").await;
            for id in ["run", "done", "new"] {
                rig.upstreams.forget(upstream, id);
            }
            let expected = if upstream == METRICS { "EXPIRED" } else { "RUNNING, stale: BAD_ANSWER" };
            assert_eq!(rig.lookup_within(name, "run", Some("0ms")).await, expected);
            assert_eq!(rig.lookup_within(name, "done", Some("0ms")).await, "SUCCEEDED");
            assert_eq!(rig.lookup(name, "new").await, "NOT_FOUND after 5s");
        }
    }
}
