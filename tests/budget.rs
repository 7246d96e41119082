//! The hourly budget on a paused clock: polls are spread over the hour, callers keep their share, and a failing source
//! is soon retried where a client waits for it.

mod replicas;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use jobgate::domain::error::ProblemCode;
use jobgate::domain::id::SourceName;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::list::{JobListFilter, JobListRequest};
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::watch::WatchUpdate;
use jobgate::outbound::upstreams::limiter::LimiterSettings;
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FRESHNESS, ScriptedReader, TestGateway, gateway, reference};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

const fn limits(per_hour: u32) -> LimiterSettings {
    LimiterSettings {
        per_second: 10,
        per_hour,
        caller_share: 20,
        concurrency: 8,
        max_wait: Duration::from_secs(10),
    }
}

/// When each id was fetched.
type Log = Arc<Mutex<BTreeMap<String, Vec<Instant>>>>;

/// Records the fetches of a reader; its jobs run until `ends` reports that they have completed.
fn log(reader: &ScriptedReader, ends: impl Fn(&str) -> bool + Send + Sync + 'static) -> Log {
    let log = Log::default();
    let calls_of_job = Arc::clone(&log);
    reader.respond_with(move |id| {
        calls_of_job.lock().unwrap().entry(id.to_string()).or_default().push(Instant::now());
        Ok(if ends(id.as_str()) { Life::Succeeded } else { Life::Running })
    });
    log
}

fn refs(source: &str, range: std::ops::Range<usize>) -> Vec<RequestedRef> {
    range.map(|number| reference(source, &format!("j{number}"))).collect()
}

fn client(name: &str) -> Principal {
    Principal::new(name, ["mind", "metrics"].map(|source| SourceName::parse(source).unwrap()))
}

/// Watches jobs for one client as long as the test lasts.
fn keep_watching(gateway: &TestGateway, name: &str, refs: Vec<RequestedRef>) {
    let mut updates = Box::pin(gateway.jobs.watch(client(name), refs, None));
    #[expect(clippy::disallowed_methods, reason = "a task of the test")]
    tokio::spawn(async move { while updates.next().await.is_some() {} });
}

/// The longest time between two polls of one job, including the start and the end of the interval.
fn longest_gap(log: &Log, from: Instant, jobs: usize) -> Duration {
    let log = log.lock().unwrap();
    let watched = log.iter().filter(|(id, _)| id.starts_with('j'));
    let gaps = watched.clone().flat_map(|(_, calls_of_job)| {
        let ends = [Instant::now()];
        let times: Vec<Instant> =
            [from].into_iter().chain(calls_of_job.iter().copied()).chain(ends).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
    });
    assert_eq!(watched.count(), jobs, "every job was fetched");
    gaps.max().unwrap()
}

/// What one hour with ten times too many jobs of each upstream came to.
#[derive(Debug)]
struct Overcommitted {
    /// The calls of each source, and the longest time between two polls of one of its jobs.
    supermetrics: (usize, Duration),
    mindbridge: (usize, Duration),
    /// The answers to a caller that were stale.
    stale: Vec<String>,
}

/// The outcome of one such hour for several tests.
async fn overcommitted() -> &'static Overcommitted {
    static RUN: OnceCell<Overcommitted> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(overcommit())).await
}

/// One hour with ten times too many jobs of each upstream, watched by clients of very different size, while a caller
/// reads other jobs.
async fn overcommit() -> Overcommitted {
    let gateway = gateway();
    gateway.supermetrics.holds_to(limits(1_000));
    gateway.mindbridge.holds_to(limits(60));
    let (queries, results) = (log(&gateway.supermetrics, |_| false), log(&gateway.mindbridge, |_| false));
    let start = Instant::now();
    keep_watching(&gateway, "large", refs("metrics", 0..90));
    keep_watching(&gateway, "small", vec![reference("metrics", "j90")]);
    for number in 91..100 {
        keep_watching(
            &gateway,
            &format!("other {number}"),
            vec![reference("metrics", &format!("j{number}"))],
        );
    }
    keep_watching(&gateway, "large", refs("mind", 0..446));
    for number in 446..450 {
        keep_watching(&gateway, &format!("other {number}"), vec![reference("mind", &format!("j{number}"))]);
    }
    gateway.jobs.start_following(CancellationToken::new());
    // The rest of the callers' share: 200 calls less the 100 first ones of the watchers.
    let mut stale = Vec::new();
    for number in 0..95 {
        tokio::time::sleep(Duration::from_secs(37)).await;
        let one = [reference("metrics", &format!("x{number}"))];
        let answer = gateway.jobs.lookup(&client("caller"), &one, None).await.pop().unwrap();
        if !matches!(&answer, Ok(answer) if answer.stale.is_none()) {
            stale.push(format!("caller {number} at {:?}: {answer:?}", start.elapsed()));
        }
    }
    tokio::time::sleep_until(start + HOUR).await;
    Overcommitted {
        supermetrics: (gateway.supermetrics.calls(), longest_gap(&queries, start, 100)),
        mindbridge: (gateway.mindbridge.calls(), longest_gap(&results, start, 450)),
        stale,
    }
}

#[tokio::test(start_paused = true)]
async fn an_overcommitted_budget_is_never_exceeded() {
    let Overcommitted { supermetrics, mindbridge, .. } = overcommitted().await;
    assert!(supermetrics.0 <= 1_000, "{} calls", supermetrics.0);
    assert!(mindbridge.0 <= 60, "{} calls", mindbridge.0);
}

#[tokio::test(start_paused = true)]
async fn an_overcommitted_budget_is_used() {
    let calls = overcommitted().await.supermetrics.0;
    assert!(calls >= 900, "{calls} calls of 1,000");
}

#[tokio::test(start_paused = true)]
async fn an_overcommitted_budget_bounds_the_gap_between_polls() {
    let Overcommitted { supermetrics, mindbridge, .. } = overcommitted().await;
    for ((_, longest), requests, background) in [(supermetrics, 100, 800), (mindbridge, 5, 48)] {
        let bound = HOUR * 2 * requests / background;
        assert!(*longest <= bound, "{longest:?} of {bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_overcommitted_budget_leaves_callers_their_share() {
    assert_eq!(overcommitted().await.stale, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_tight_budget_delivers_every_terminal_state() {
    let gateway = gateway();
    gateway.supermetrics.holds_to(limits(250));
    let start = Instant::now();
    log(&gateway.supermetrics, move |id| id.starts_with('j') && start.elapsed() > SECOND * 60);
    gateway.jobs.start_following(CancellationToken::new());
    let mut updates = Box::pin(gateway.jobs.watch(client("watcher"), refs("metrics", 0..30), None));
    let mut ended = 0;
    while let Some(update) = updates.next().await {
        ended += usize::from(
            update.is_final && update.answer.unwrap().observation.job.state() == JobState::Succeeded,
        );
    }
    let bound = SECOND * 60 + HOUR * 2 * 30 / 200;
    assert_eq!(ended, 30);
    assert!(start.elapsed() <= bound, "{:?} of {bound:?}", start.elapsed());
    let one = [reference("metrics", "x")];
    assert_eq!(gateway.jobs.lookup(&client("another"), &one, None).await[0].as_ref().unwrap().stale, None);
}

#[tokio::test(start_paused = true)]
async fn next_poll_at_predicts_the_next_poll() {
    for (per_hour, jobs, within) in [(250, 30, 60), (100_000, 30, 2)] {
        let gateway = gateway();
        gateway.supermetrics.holds_to(limits(per_hour));
        let calls_of_job = log(&gateway.supermetrics, |_| false);
        gateway.jobs.start_following(CancellationToken::new());
        keep_watching(&gateway, "watcher", refs("metrics", 0..jobs));
        tokio::time::sleep(SECOND * 900).await;
        let request = JobListRequest::new(JobListFilter::default(), 100);
        let page = gateway.jobs.list(&client("reader"), &request).await.unwrap();
        let (now, seen_at) = (Instant::now(), page.jobs[0].snapshot.observation.observed_at);
        let now_at = seen_at + page.jobs[0].snapshot.age;
        tokio::time::sleep(SECOND * 1_200).await;
        let calls_of_job = calls_of_job.lock().unwrap();
        let mut foretold = 0;
        for job in &page.jobs {
            let Some(next) = job.snapshot.next_poll else { continue };
            let next = Duration::try_from(next.duration_since(now_at)).unwrap_or_default();
            let id = job.snapshot.observation.job.key.external_id.to_string();
            let came = calls_of_job[&id].iter().find(|at| **at >= now).unwrap().duration_since(now);
            assert!(came.abs_diff(next) <= SECOND * within, "{id}: predicted {next:?}, polled {came:?}");
            foretold += 1;
        }
        assert!(foretold >= jobs - 1, "{foretold} of {jobs}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ample_budget_does_not_change_the_poll_rate() {
    let mut calls = Vec::new();
    for limited in [false, true] {
        let gateway = gateway();
        if limited {
            gateway.supermetrics.holds_to(limits(5_000));
        }
        log(&gateway.supermetrics, |_| false);
        gateway.jobs.start_following(CancellationToken::new());
        keep_watching(&gateway, "watcher", refs("metrics", 0..10));
        tokio::time::sleep(HOUR).await;
        calls.push(gateway.supermetrics.calls());
    }
    assert!(calls[0].abs_diff(calls[1]) * 50 <= calls[0], "{calls:?}");
}

/// A source fails for `outage` while one job is watched; returns how long after the recovery its completion is
/// delivered.
async fn updates_after(outage: Duration, watchers: usize) -> (Duration, usize) {
    let gateway = gateway();
    gateway.supermetrics.holds_to(limits(100_000));
    gateway.supermetrics.takes(SECOND / 100);
    let start = Instant::now();
    gateway.supermetrics.respond_with(move |_| {
        let now = start.elapsed();
        if now < SECOND * 2 {
            Ok(Life::Running)
        } else if now < SECOND * 2 + outage {
            Err(FetchError::Unavailable(Detail::new("down")))
        } else {
            Ok(Life::Succeeded)
        }
    });
    gateway.jobs.start_following(CancellationToken::new());
    let updates = gateway.jobs.watch(client("watcher"), refs("metrics", 0..watchers), None);
    let received: Vec<_> = updates.collect().await;
    let is_outage = |update: &&WatchUpdate| match &update.answer {
        Ok(seen) => seen.stale == Some(StaleReason::Unavailable),
        // not observed before the outage
        Err(problem) => problem.code == ProblemCode::Unavailable,
    };
    let stale_updates = received.iter().filter(is_outage).count();
    assert!(stale_updates >= watchers, "each receives the outage: {stale_updates}");
    (start.elapsed().saturating_sub(outage + SECOND * 2), gateway.supermetrics.calls())
}

#[tokio::test(start_paused = true)]
async fn watched_jobs_are_polled_within_seconds_after_an_outage() {
    for (outage, watchers) in [(90, 1), (300, 1), (300, 40), (1_000, 3)] {
        let (late, calls) = updates_after(SECOND * outage, watchers).await;
        assert!(late <= SECOND * 8, "{late:?} after {outage} s with {watchers} jobs");
        let probes = usize::try_from(outage).unwrap() / 4 + 20;
        assert!(calls <= probes + 4 * watchers, "few probes: {calls} calls in {outage} s");
    }
}

#[tokio::test(start_paused = true)]
async fn rechecks_of_ended_jobs_leave_polls_their_calls() {
    let gateway = gateway();
    gateway.supermetrics.holds_to(limits(250));
    let calls_of_job = log(&gateway.supermetrics, |id| id.starts_with('e'));
    let start = Instant::now();
    keep_watching(&gateway, "watcher", refs("metrics", 0..20));
    gateway.jobs.start_following(CancellationToken::new());
    let ended: Vec<RequestedRef> =
        (0..30).map(|number| reference("metrics", &format!("e{number}"))).collect();
    while start.elapsed() < HOUR {
        // Each of these answers is old enough for a re-check.
        let answers = gateway.jobs.lookup(&client("reader"), &ended, None).await;
        assert!(answers.iter().all(Result::is_ok));
        tokio::time::sleep(FRESHNESS.rerun_check + SECOND).await;
    }
    let (longest, bound) = (longest_gap(&calls_of_job, start, 20), HOUR * 2 * 20 / 200);
    assert!(longest <= bound, "{longest:?} of {bound:?}");
}
