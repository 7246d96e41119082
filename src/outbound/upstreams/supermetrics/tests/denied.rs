//! Errors that may concern one job or all of them: they make a job failed only if another job can be read after them.

use std::sync::mpsc;

use futures_util::future::{join, join4};

use super::*;

/// A source of which every job but those in `readable` is denied with `code`.
fn denying(code: &'static str, readable: &'static [&'static str]) -> (ScriptedServer, Arc<Mutex<bool>>) {
    let lost = Arc::new(Mutex::new(false));
    let all = Arc::clone(&lost);
    let server = ScriptedServer::start(move |seen| {
        let requested = seen.json()["schedule_id"].as_str().unwrap().to_owned();
        if readable.contains(&requested.as_str()) && !*all.lock().unwrap() {
            return json(200, &json!({"meta": {"schedule_id": requested, "status_code": "RUNNING"}}));
        }
        error(403, code)
    });
    (server, lost)
}

#[tokio::test]
async fn denied_job_fails_only_if_another_job_is_readable() {
    for code in ["PERMISSION_DENIED", "LICENSE_ROW_LIMIT_EXCEEDED", "LICENSE_ACCOUNT_LIMIT_EXCEEDED"] {
        let (server, _) = denying(code, &["good"]);
        let reader = open(&server);
        assert_eq!(fetch(&reader, "denied").await, "Unavailable", "{code}: nothing else is known");
        assert_eq!(fetch(&reader, "good").await, "Running");
        let fetches = reader.fetch(&[id("denied")], &FetchTrigger::Operator).await;
        let job = fetches[0].outcome.as_ref().unwrap();
        assert_eq!(job.failure().unwrap().code.as_deref(), Some(code));
        assert_eq!(server.seen().len(), 4, "one read of the other job is the evidence");
        assert_eq!(fetch(&reader, "good").await, "Running", "{code}: no other job waits");
    }
}

/// The reader of a source on which the job `denied` is denied; so is every other after `good` was read once. Requests
/// about `held` are answered only when the sender triggers it.
fn losing(held: &'static str, concurrency: u32) -> (ScriptedServer, Arc<dyn JobReader>, mpsc::Sender<()>) {
    let (release, suppressed) = mpsc::channel();
    let (suppressed, lost) = (Mutex::new(suppressed), AtomicBool::new(false));
    let server = ScriptedServer::start(move |seen| {
        let job = seen.json()["schedule_id"].as_str().unwrap().to_owned();
        if job == held {
            suppressed.lock().unwrap().recv().ok();
        }
        let readable = job != "denied" && !lost.load(Ordering::SeqCst);
        lost.fetch_or(job == "good", Ordering::SeqCst);
        if readable {
            json(200, &json!({"meta": {"status_code": "RUNNING"}}))
        } else {
            error(403, "PERMISSION_DENIED")
        }
    });
    let settings = SourceSettings { concurrency, ..settings(&server.url) };
    let reader = reader(Upstream::Supermetrics, settings, deps(OneKey::api_key(KEY)));
    (server, reader, release)
}

async fn fetch_as(reader: &Arc<dyn JobReader>, job: &str, trigger: FetchTrigger) -> String {
    word(&reader.fetch(&[id(job)], &trigger).await[0].outcome)
}

fn requested(server: &ScriptedServer) -> Vec<String> {
    server.seen().iter().map(|seen| seen.json()["schedule_id"].as_str().unwrap().to_owned()).collect()
}

/// The denied job began to wait in the queue first, and the other one was sent first.
#[tokio::test]
async fn a_read_sent_before_the_denied_one_is_no_evidence() {
    let (server, reader, release) = losing("first", 1);
    let (first, denied, good, ()) = join4(
        fetch_as(&reader, "first", FetchTrigger::Operator),
        fetch_as(&reader, "denied", FetchTrigger::Background),
        fetch_as(&reader, "good", FetchTrigger::Operator),
        async { release.send(()).unwrap() },
    )
    .await;
    assert_eq!(requested(&server), ["first", "good", "denied", "good"]);
    assert_eq!([first, good, denied], ["Running", "Running", "Unavailable"]);
}

#[tokio::test]
async fn a_read_sent_before_the_denial_came_is_no_evidence() {
    let (server, reader, release) = losing("denied", 8);
    let (denied, good) = join(fetch_as(&reader, "denied", FetchTrigger::Operator), async {
        let good = fetch_as(&reader, "good", FetchTrigger::Operator).await;
        release.send(()).unwrap();
        good
    })
    .await;
    assert_eq!(requested(&server).last().unwrap(), "good", "it is read again");
    assert_eq!([good, denied], ["Running", "Unavailable"]);
}

#[tokio::test]
async fn jobs_denied_at_once_fail_while_another_reads_well() {
    let (server, _) = denying("PERMISSION_DENIED", &["good"]);
    let reader = open(&server);
    assert_eq!(fetch(&reader, "good").await, "Running");
    let ids: Vec<ExternalId> = (0..8).map(|number| id(&format!("denied{number}"))).collect();
    for fetch in reader.fetch(&ids, &FetchTrigger::Operator).await {
        assert_eq!(word(&fetch.outcome), "Failed");
    }
}

#[tokio::test]
async fn lost_permission_does_not_fail_any_job() {
    for code in ["PERMISSION_DENIED", "LICENSE_QUERIES_SUSPENDED"] {
        let (server, lost) = denying(code, &["a", "b", "c"]);
        let reader = open(&server);
        for job in ["a", "b", "c"] {
            assert_eq!(fetch(&reader, job).await, "Running");
        }
        *lost.lock().unwrap() = true;
        for _ in 0..3 {
            for job in ["a", "b", "c"] {
                assert_eq!(fetch(&reader, job).await, "Unavailable", "{code} {job}");
            }
        }
        assert_eq!(server.seen().len(), 3 + 9 + 1, "one check for all of them");
        *lost.lock().unwrap() = false;
        for job in ["a", "b", "c"] {
            assert_eq!(fetch(&reader, job).await, "Running", "{code} {job}");
        }
    }
}
