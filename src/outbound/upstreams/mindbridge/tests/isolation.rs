//! A batch with a defective job: what is read nevertheless, with how many calls, and what is remembered.

use super::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A tenant whose query endpoint refuses every batch with one of `spoilers`; `everywhere` also refuses a read of one of
/// them.
fn spoiled(spoilers: &'static [&'static str], everywhere: bool) -> impl Fn(&SeenRequest) -> Vec<u8> {
    move |seen| {
        let requested = |id: &str| {
            if seen.body.is_empty() {
                seen.target().ends_with(&format!("/{id}"))
            } else {
                seen.body.contains(&format!("\"{id}\""))
            }
        };
        if (everywhere || !seen.body.is_empty()) && spoilers.iter().any(|id| requested(id)) {
            return json(400, &json!({"title": "Bad Request", "status": 400, "detail": "an id is bad"}));
        }
        tenant(100, true, |_| false)(seen)
    }
}

#[tokio::test]
async fn unreadable_batch_is_split_and_the_split_is_remembered() {
    for (spoilers, everywhere, calls) in [
        (&["job17"] as &[_], true, [13 + 1, 1 + 1]),
        (&["job17"], false, [13 + 1, 1 + 1]),
        (&["job0", "job49"], true, [21 + 2, 1 + 2]),
    ] {
        let server = ScriptedServer::start(spoiled(spoilers, everywhere));
        let reader = open(&server);
        let wanted = ids(50);
        for calls in calls {
            let before = server.seen().len();
            for (id, fetch) in wanted.iter().zip(reader.fetch(&wanted, &FetchTrigger::Operator).await) {
                let expected = match (spoilers.contains(&id.as_str()), everywhere) {
                    (false, _) => "Running",
                    (true, true) => "BadAnswer",
                    (true, false) => "Succeeded",
                };
                assert_eq!(word(&fetch.outcome), expected, "{id}");
            }
            assert_eq!(server.seen().len() - before, calls, "{spoilers:?}");
        }
    }
}

#[tokio::test]
async fn batch_with_many_bad_jobs_has_a_bounded_number_of_calls() {
    const MANY: [&str; 10] =
        ["job3", "job13", "job23", "job33", "job43", "job53", "job63", "job73", "job83", "job93"];
    let server = ScriptedServer::start(spoiled(&MANY, false));
    let wanted = ids(100);
    let fetches = open(&server).fetch(&wanted, &FetchTrigger::Operator).await;
    for (id, fetch) in wanted.iter().zip(&fetches) {
        assert!(fetch.outcome.is_ok(), "{id}: {fetch:?}");
    }
    let seen = server.seen();
    let queries = seen.iter().filter(|seen| !seen.body.is_empty()).count();
    assert!(queries <= 48 && seen.len() <= 48 + 100, "{queries} of {}", seen.len());
}

#[tokio::test]
async fn source_without_readable_answers_is_not_called_for_each_job() {
    let server = ScriptedServer::start(|_| answer(200, "", r#"{"message":"mainten"#));
    let fetches = open(&server).fetch(&ids(100), &FetchTrigger::Operator).await;
    assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "BadAnswer"));
    assert!(server.seen().len() < 30, "{}", server.seen().len());
}

/// A tenant that returns `fault` to every query with one of `spoilers`, and reads each job alone.
fn broken_by(spoilers: &'static [&'static str], fault: Vec<u8>) -> impl Fn(&SeenRequest) -> Vec<u8> {
    move |seen| {
        let is_spoiled = spoilers.iter().any(|id| seen.body.contains(&format!("\"{id}\"")));
        if is_spoiled {
            return fault.clone();
        }
        tenant(100, true, |_| false)(seen)
    }
}

#[tokio::test]
async fn a_server_error_of_one_job_is_isolated_and_remembered() {
    // the empty response closes the connection
    for fault in [answer(500, "", ""), answer(502, "", "<html>"), Vec::new()] {
        let server = ScriptedServer::start(broken_by(&["job17"], fault));
        let reader = open(&server);
        // three tries of the batch, one read as a check, twelve parts and a read; then the batch without the job
        for calls in [3 + 1 + 12 + 1, 1 + 1] {
            let before = server.seen().len();
            let fetches = reader.fetch(&ids(50), &FetchTrigger::Operator).await;
            for (id, fetch) in ids(50).iter().zip(fetches) {
                let expected = if id.as_str() == "job17" { "Succeeded" } else { "Running" };
                assert_eq!(word(&fetch.outcome), expected, "{id}");
            }
            assert_eq!(server.seen().len() - before, calls);
        }
        assert_eq!(reader.status().health, SourceHealth::Healthy);
    }
}

#[tokio::test]
async fn server_errors_of_many_jobs_open_no_circuit_breaker() {
    const ALL: [&str; 8] = ["job0", "job1", "job2", "job3", "job4", "job5", "job6", "job7"];
    let server = ScriptedServer::start(broken_by(&ALL, answer(500, "", "")));
    let reader = open(&server);
    let fetches = reader.fetch(&ids(8), &FetchTrigger::Operator).await;
    assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "Succeeded"), "{fetches:?}");
    // three tries of the batch, one read as a check, two queries for each of seven parts, and the reads
    assert_eq!(server.seen().len(), 3 + 1 + 14 + 8);
    assert_eq!(reader.status().health, SourceHealth::Healthy);
}

#[tokio::test]
async fn retry_after_of_a_part_pauses_the_source() {
    let server = ScriptedServer::start(|seen| {
        match (seen.body.contains("\"job0\""), seen.body.contains("\"job7\"")) {
            (true, true) => answer(500, "", ""),
            (true, false) => answer(503, "retry-after: 7\r\n", ""),
            (false, _) => tenant(100, true, |_| false)(seen),
        }
    });
    let reader = open(&server);
    let fetches = reader.fetch(&ids(8), &FetchTrigger::Operator).await;
    let words: Vec<String> = fetches.iter().map(|fetch| word(&fetch.outcome)).collect();
    assert_eq!(words, [["Throttled 7"; 4], ["Running"; 4]].concat());
    assert_eq!((server.seen().len(), reader.status().health), (3 + 1 + 2, SourceHealth::Throttled));
}

#[tokio::test]
async fn outage_does_not_cause_a_call_per_job() {
    let down = Arc::new(AtomicBool::new(true));
    let server = {
        let down = Arc::clone(&down);
        ScriptedServer::start(move |seen| {
            if down.load(Ordering::Relaxed) {
                answer(500, "", "")
            } else {
                tenant(100, true, |_| false)(seen)
            }
        })
    };
    let reader = open(&server);
    let fetches = reader.fetch(&ids(100), &FetchTrigger::Operator).await;
    assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "Unavailable"));
    assert_eq!(server.seen().len(), 3 + 1);
}

/// The jobs of every query, in the order of the queries.
fn queried(seen: &[SeenRequest]) -> Vec<HashSet<String>> {
    let ids = |seen: &SeenRequest| {
        let body: Value = serde_json::from_str(&seen.body).ok()?;
        let ids = body["id"]["$in"].as_array()?.iter();
        Some(ids.filter_map(Value::as_str).map(str::to_owned).collect())
    };
    seen.iter().filter_map(ids).collect()
}

/// A tenant that never answers some requests. The clock is paused, so nothing here depends on the speed of the machine.
pub(super) struct Hanging {
    pub(super) server: ScriptedServer,
    reader: Arc<dyn JobReader>,
    /// One message for each request that is never answered.
    received: UnboundedReceiver<()>,
    /// The paused clock advances by itself while a task waits for a socket, unless a blocking task runs: one runs until
    /// this is dropped.
    _blocks: std::sync::mpsc::Sender<()>,
}

impl Hanging {
    const TIMEOUT: Duration = Duration::from_secs(2);

    pub(super) fn start(hangs: impl Fn(&SeenRequest) -> bool + Send + Sync + 'static) -> Self {
        let (report, received) = unbounded_channel();
        let server = ScriptedServer::start(move |seen| {
            if hangs(seen) {
                report.send(()).ok();
                loop {
                    std::thread::park();
                }
            }
            tenant(100, true, |_| false)(seen)
        });
        let settings = SourceSettings { status_timeout: Self::TIMEOUT, ..settings(&server.url) };
        let reader = reader(Upstream::MindBridge, settings, deps(OneKey::bearer("a-bearer-token")));
        let (blocks, dropped) = std::sync::mpsc::channel();
        drop(tokio::task::spawn_blocking(move || dropped.recv().ok()));
        Self { server, reader, received, _blocks: blocks }
    }

    /// Fetches jobs. The call times out once only requests that are never answered are pending.
    pub(super) async fn fetch(&mut self, ids: &[ExternalId]) -> Vec<Fetch> {
        let received = &mut self.received;
        let run_out = async {
            while received.recv().await.is_some() {
                let mut hanging = 1;
                while self.reader.status().budget.in_flight > hanging {
                    tokio::task::yield_now().await;
                    hanging += u32::from(received.try_recv().is_ok());
                }
                tokio::time::advance(Self::TIMEOUT).await;
            }
            unreachable!("the server runs until the process ends");
        };
        tokio::select! {
            fetches = self.reader.fetch(ids, &FetchTrigger::Operator) => fetches,
            () = run_out => Vec::new(),
        }
    }
}

/// The first of eight jobs makes a query time out. Each poll narrows it down further, and the others are read.
#[tokio::test(start_paused = true)]
async fn interrupted_split_continues_with_the_next_poll() {
    let mut tenant = Hanging::start(|seen| seen.body.contains("\"job0\""));
    for lost in [8, 4, 2, 1, 0] {
        let fetches = tenant.fetch(&ids(8)).await;
        let late = fetches.iter().filter(|fetch| word(&fetch.outcome) == "TimedOut").count();
        assert_eq!(late, lost, "{:?}", queried(&tenant.server.seen()));
    }
    let before = queried(&tenant.server.seen()).len();
    tenant.fetch(&ids(8)).await;
    let after = queried(&tenant.server.seen());
    assert_eq!((after.len() - before, after[before].len()), (1, 7), "one batch again, without the job");
}

#[tokio::test(start_paused = true)]
async fn slow_source_does_not_cause_a_call_per_job() {
    let mut tenant = Hanging::start(|_| true);
    // the batch, then its halves, and no smaller parts while nothing of it was read
    for calls in [1, 2, 2] {
        let before = tenant.server.seen().len();
        tenant.fetch(&ids(64)).await;
        assert_eq!(tenant.server.seen().len() - before, calls);
    }
}
