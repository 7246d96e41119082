//! A batch that one of its jobs spoils: what is read all the same, with how many calls, and what is remembered.

use super::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A tenant whose query endpoint refuses every batch that names one of `spoilers`; so does a read of one of them where
/// they are bad `everywhere`.
fn spoiled(spoilers: &'static [&'static str], everywhere: bool) -> impl Fn(&Seen) -> Vec<u8> {
    move |seen| {
        let asked = |id: &str| {
            if seen.body.is_empty() {
                seen.target().ends_with(&format!("/{id}"))
            } else {
                seen.body.contains(&format!("\"{id}\""))
            }
        };
        if (everywhere || !seen.body.is_empty()) && spoilers.iter().any(|id| asked(id)) {
            return json(400, &json!({"title": "Bad Request", "status": 400, "detail": "an id is bad"}));
        }
        tenant(100, true, |_| false)(seen)
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_split_and_remembered() {
    for (spoilers, everywhere, calls) in [
        (&["job17"] as &[_], true, [13 + 1, 1 + 1]),
        (&["job17"], false, [13 + 1, 1 + 1]),
        (&["job0", "job49"], true, [21 + 2, 1 + 2]),
    ] {
        let server = Server::start(spoiled(spoilers, everywhere));
        let reader = open(&server);
        let wanted = ids(50);
        for calls in calls {
            let before = server.seen().len();
            for (id, look) in wanted.iter().zip(reader.look(&wanted, &Asker::Operator).await) {
                let expected = match (spoilers.contains(&id.as_str()), everywhere) {
                    (false, _) => "Running",
                    (true, true) => "BadAnswer",
                    (true, false) => "Succeeded",
                };
                assert_eq!(word(&look.outcome), expected, "{id}");
            }
            assert_eq!(server.seen().len() - before, calls, "{spoilers:?}");
        }
    }
}

#[tokio::test]
async fn a_batch_with_many_spoilers_costs_a_bounded_number_of_calls() {
    const MANY: [&str; 10] =
        ["job3", "job13", "job23", "job33", "job43", "job53", "job63", "job73", "job83", "job93"];
    let server = Server::start(spoiled(&MANY, false));
    let wanted = ids(100);
    let looks = open(&server).look(&wanted, &Asker::Operator).await;
    for (id, look) in wanted.iter().zip(&looks) {
        assert!(look.outcome.is_ok(), "{id}: {look:?}");
    }
    let seen = server.seen();
    let queries = seen.iter().filter(|seen| !seen.body.is_empty()).count();
    assert!(queries <= 48 && seen.len() <= 48 + 100, "{queries} of {}", seen.len());
    // a source of which nothing can be read at all is not asked for each job
    let server = Server::start(|_| answer(200, "", r#"{"message":"mainten"#));
    let looks = open(&server).look(&wanted, &Asker::Operator).await;
    assert!(looks.iter().all(|look| word(&look.outcome) == "BadAnswer"));
    assert!(server.seen().len() < 30, "{}", server.seen().len());
}

/// A tenant that answers `fault` to every query that names one of `spoilers`, and reads each job alone.
fn broken_by(spoilers: &'static [&'static str], fault: Vec<u8>) -> impl Fn(&Seen) -> Vec<u8> {
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
    // the empty answer closes the connection
    for fault in [answer(500, "", ""), answer(502, "", "<html>"), Vec::new()] {
        let server = Server::start(broken_by(&["job17"], fault));
        let reader = open(&server);
        // three tries of the batch, one read as a check, twelve parts and a read; then the batch without the job
        for calls in [3 + 1 + 12 + 1, 1 + 1] {
            let before = server.seen().len();
            let looks = reader.look(&ids(50), &Asker::Operator).await;
            for (id, look) in ids(50).iter().zip(looks) {
                let expected = if id.as_str() == "job17" { "Succeeded" } else { "Running" };
                assert_eq!(word(&look.outcome), expected, "{id}");
            }
            assert_eq!(server.seen().len() - before, calls);
        }
        assert_eq!(reader.status().health, SourceHealth::Healthy);
    }
}

#[tokio::test]
async fn server_errors_of_many_jobs_open_no_circuit_breaker() {
    const ALL: [&str; 8] = ["job0", "job1", "job2", "job3", "job4", "job5", "job6", "job7"];
    let server = Server::start(broken_by(&ALL, answer(500, "", "")));
    let reader = open(&server);
    let looks = reader.look(&ids(8), &Asker::Operator).await;
    assert!(looks.iter().all(|look| word(&look.outcome) == "Succeeded"), "{looks:?}");
    // three tries of the batch, one read as a check, two queries for each of seven parts, and the reads
    assert_eq!(server.seen().len(), 3 + 1 + 14 + 8);
    assert_eq!(reader.status().health, SourceHealth::Healthy);
}

#[tokio::test]
async fn a_pause_that_a_part_asks_for_is_kept() {
    let server =
        Server::start(|seen| match (seen.body.contains("\"job0\""), seen.body.contains("\"job7\"")) {
            (true, true) => answer(500, "", ""),
            (true, false) => answer(503, "retry-after: 7\r\n", ""),
            (false, _) => tenant(100, true, |_| false)(seen),
        });
    let reader = open(&server);
    let looks = reader.look(&ids(8), &Asker::Operator).await;
    let words: Vec<String> = looks.iter().map(|look| word(&look.outcome)).collect();
    assert_eq!(words, [["Throttled 7"; 4], ["Running"; 4]].concat());
    assert_eq!((server.seen().len(), reader.status().health), (3 + 1 + 2, SourceHealth::Throttled));
}

#[tokio::test]
async fn an_outage_costs_no_call_for_each_job() {
    let down = Arc::new(AtomicBool::new(true));
    let server = {
        let down = Arc::clone(&down);
        Server::start(move |seen| {
            if down.load(Ordering::Relaxed) {
                answer(500, "", "")
            } else {
                tenant(100, true, |_| false)(seen)
            }
        })
    };
    let reader = open(&server);
    let looks = reader.look(&ids(100), &Asker::Operator).await;
    assert!(looks.iter().all(|look| word(&look.outcome) == "Unavailable"));
    assert_eq!(server.seen().len(), 3 + 1);
}

/// The jobs that every query names, in the order of the queries.
fn queried(seen: &[Seen]) -> Vec<HashSet<String>> {
    let ids = |seen: &Seen| {
        let body: Value = serde_json::from_str(&seen.body).ok()?;
        let ids = body["id"]["$in"].as_array()?.iter();
        Some(ids.filter_map(Value::as_str).map(str::to_owned).collect())
    };
    seen.iter().filter_map(ids).collect()
}

/// A tenant that never answers some requests. The clock is paused, so nothing here depends on the speed of the machine.
pub(super) struct Hanging {
    pub(super) server: Server,
    reader: Arc<dyn JobReader>,
    /// One message for each request that is never answered.
    received: UnboundedReceiver<()>,
    /// The paused clock advances by itself while a task waits for a socket, unless a blocking task runs: one runs until
    /// this is dropped.
    _blocks: std::sync::mpsc::Sender<()>,
}

impl Hanging {
    const TIMEOUT: Duration = Duration::from_secs(2);

    pub(super) fn start(hangs: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        let (report, received) = unbounded_channel();
        let server = Server::start(move |seen| {
            if hangs(seen) {
                report.send(()).ok();
                loop {
                    std::thread::park();
                }
            }
            tenant(100, true, |_| false)(seen)
        });
        let settings = SourceSettings { status_timeout: Self::TIMEOUT, ..settings(&server.url) };
        let reader = reader(Upstream::MindBridge, settings, means(OneKey::bearer("a-bearer-token")));
        let (blocks, dropped) = std::sync::mpsc::channel();
        drop(tokio::task::spawn_blocking(move || dropped.recv().ok()));
        Self { server, reader, received, _blocks: blocks }
    }

    /// Looks at jobs. The time of the call runs out once every request under way is one that is never answered.
    pub(super) async fn look(&mut self, ids: &[ExternalId]) -> Vec<Look> {
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
            looks = self.reader.look(ids, &Asker::Operator) => looks,
            () = run_out => Vec::new(),
        }
    }
}

/// The first of eight jobs lets a query run out of time. Each poll knows it better, and the others are read.
#[tokio::test(start_paused = true)]
async fn a_split_without_time_goes_on_with_the_next_poll() {
    let mut tenant = Hanging::start(|seen| seen.body.contains("\"job0\""));
    for lost in [8, 4, 2, 1, 0] {
        let looks = tenant.look(&ids(8)).await;
        let late = looks.iter().filter(|look| word(&look.outcome) == "TimedOut").count();
        assert_eq!(late, lost, "{:?}", queried(&tenant.server.seen()));
    }
    let before = queried(&tenant.server.seen()).len();
    tenant.look(&ids(8)).await;
    let after = queried(&tenant.server.seen());
    assert_eq!((after.len() - before, after[before].len()), (1, 7), "one batch again, without the job");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_late_costs_no_call_for_each_job() {
    let mut tenant = Hanging::start(|_| true);
    // the batch, then its halves, and no smaller parts while nothing of it was read
    for calls in [1, 2, 2] {
        let before = tenant.server.seen().len();
        tenant.look(&ids(64)).await;
        assert_eq!(tenant.server.seen().len() - before, calls);
    }
}
