//! The lookup use case on a paused clock: single flight, caching, and the answers of callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use jobgate::domain::error::{Problem, ProblemCode, Retry};
use jobgate::domain::id::{JobKey, SourceName};
use jobgate::domain::job::Life;
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::{JobSnapshot, LookupResult, StaleReason};
use jobgate::jobs::list::{JobListFilter, JobListRequest};
use jobgate::jobs::visibility::RequestedRef;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use jobgate::ports::BoxFuture;
use jobgate::ports::store::{JobStore, ListFilter, StoreError, StoreOutcome};
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{
    FOLLOW, RuntimeClock, TestGateway, failed, gateway, gateway_on, reference, retention,
};

const SECOND: Duration = Duration::from_secs(1);

async fn lookup(gateway: &TestGateway, source: &str, id: &str) -> LookupResult {
    gateway.jobs.lookup_one(&Principal::local(), reference(source, id), None).await
}

fn state(answer: &LookupResult) -> JobState {
    answer.as_ref().unwrap().observation.job.state()
}

fn problem(answer: LookupResult) -> ProblemCode {
    answer.unwrap_err().code
}

fn unavailable() -> FetchError {
    FetchError::Unavailable(Detail::new("planted"))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_concurrent_lookups_share_one_fetch() {
    let gateway = gateway();
    let answers = join_all((0..1_000).map(|_| lookup(&gateway, "metrics", "a"))).await;
    assert!(answers.iter().all(|answer| state(answer) == JobState::Running));
    assert_eq!(gateway.supermetrics.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_jobs_are_fetched_with_one_call_per_page() {
    let gateway = gateway();
    let mut refs: Vec<RequestedRef> =
        (0..200).map(|number| reference("mind", &format!("job{number}"))).collect();
    refs[199] = refs[0].clone();
    let answers = gateway.jobs.lookup(&Principal::local(), &refs, None).await;
    let ids: Vec<&str> = answers
        .iter()
        .map(|answer| answer.as_ref().unwrap().observation.job.key.external_id.as_str())
        .collect();
    let expected: Vec<String> =
        (0..199).map(|number| format!("job{number}")).chain(["job0".to_owned()]).collect();
    assert_eq!(ids, expected, "same order, same length");
    let batches = gateway.mindbridge.batches.lock().unwrap();
    assert_eq!(batches.len(), 2);
    assert_eq!(batches.iter().flatten().count(), 199, "a duplicate reference is fetched once");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_leader_does_not_cancel_the_shared_fetch() {
    let gateway = Arc::new(gateway());
    let leader = tokio::time::timeout(SECOND / 20, lookup(&gateway, "mind", "a")).await;
    assert!(leader.is_err(), "the leader disconnected during its fetch");
    assert_eq!(state(&lookup(&gateway, "mind", "a").await), JobState::Running);
    assert_eq!(gateway.mindbridge.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_reports_when_its_state_was_first_observed() {
    let gateway = gateway();
    let mut times = Vec::new();
    for life in [Life::Queued, Life::Running, Life::Running, Life::Succeeded] {
        gateway.mindbridge.respond_with(move |_| Ok(life.clone()));
        let seen =
            gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), Some(Duration::ZERO)).await;
        let seen = seen.unwrap().observation;
        let known = seen.sightings;
        times.push((seen.observed_at, known.first_seen_at, known.state_since, known.terminal_seen_at));
        tokio::time::advance(SECOND * 10).await;
    }
    let at: Vec<_> = times.iter().map(|(observed_at, ..)| *observed_at).collect();
    let expected = [(0, None), (1, None), (1, None), (3, Some(at[3]))];
    let expected =
        expected.iter().zip(&at).map(|((since, end), seen)| (*seen, Some(at[0]), Some(at[*since]), *end));
    assert_eq!(times, expected.collect::<Vec<_>>());
}

/// The states of the transitions in an answer.
fn transitions(seen: &JobSnapshot) -> Vec<JobState> {
    seen.transitions().map(|one| one.state).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_the_transitions_that_were_observed_before() {
    let gateway = gateway();
    let mut seen = Vec::new();
    for life in [Life::Queued, Life::Running, Life::Running, Life::Succeeded] {
        gateway.mindbridge.respond_with(move |_| Ok(life.clone()));
        let now = Some(Duration::ZERO);
        let answer = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), now).await.unwrap();
        seen.push(answer);
        tokio::time::advance(SECOND * 10).await;
    }
    let last = &seen[3];
    assert_eq!(transitions(last), [JobState::Queued, JobState::Running, JobState::Succeeded]);
    let times: Vec<_> = last.transitions().map(|one| one.observed_at).collect();
    assert_eq!(times, [seen[0].observed_at, seen[1].observed_at, seen[3].observed_at]);
    let refs = vec![reference("mind", "a")];
    let late = gateway.jobs.watch(Principal::local(), refs, None).collect::<Vec<_>>().await;
    let late = late[0].answer.as_ref().unwrap();
    assert_eq!(transitions(late), transitions(last), "a late subscriber sees them too");
}

#[tokio::test(start_paused = true)]
async fn a_followed_job_that_the_store_evicts_keeps_its_transitions() {
    let store = Arc::new(MemoryStore::new(Retention { max_bytes: 0, ..retention() }));
    let gateway = gateway_on(FOLLOW, Arc::new(RuntimeClock::default()), store, Arc::new(NoLedger));
    gateway.jobs.start_following(CancellationToken::new());
    let start = Instant::now();
    gateway.mindbridge.respond_with(move |_| {
        Ok(match start.elapsed().as_secs() {
            0..10 => Life::Queued,
            10..20 => Life::Running,
            _ => Life::Succeeded,
        })
    });
    let refs = vec![reference("mind", "a")];
    let updates = gateway.jobs.watch(Principal::local(), refs, None).collect::<Vec<_>>().await;
    let last = updates.last().unwrap().answer.as_ref().unwrap();
    assert_eq!(transitions(last), [JobState::Queued, JobState::Running, JobState::Succeeded]);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_job_is_refetched_beyond_max_staleness() {
    let gateway = gateway();
    lookup(&gateway, "mind", "a").await.unwrap();
    tokio::time::advance(SECOND * 2).await;
    let held = lookup(&gateway, "mind", "a").await.unwrap();
    assert_eq!((gateway.mindbridge.calls(), held.age, held.stale), (1, SECOND * 2, None));
    let max = Some(SECOND);
    let batches = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!((gateway.mindbridge.calls(), batches.age), (2, Duration::ZERO));
    tokio::time::advance(SECOND * 100).await;
    let max = Some(SECOND * 100);
    gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!(gateway.mindbridge.calls(), 2, "a caller that allows an older answer gets it without a call");
}

#[tokio::test(start_paused = true)]
async fn a_finished_mindbridge_job_is_never_fetched_again() {
    let gateway = gateway();
    gateway.mindbridge.respond_with(|_| Ok(failed()));
    lookup(&gateway, "mind", "a").await.unwrap();
    tokio::time::advance(SECOND * 10_000).await;
    let max = Some(Duration::ZERO);
    let answer = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!((gateway.mindbridge.calls(), answer.stale, answer.age), (1, None, SECOND * 10_000));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_state_survives_an_upstream_404() {
    let gateway = gateway();
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    lookup(&gateway, "metrics", "a").await.unwrap();
    gateway.supermetrics.respond_with(|_| Err(FetchError::NotFound));
    for _ in 0..3 {
        tokio::time::advance(SECOND * 301).await;
        assert_eq!(state(&lookup(&gateway, "metrics", "a").await), JobState::Succeeded);
        gateway.spawner.idle().await;
    }
    assert_eq!(gateway.supermetrics.calls(), 4, "each background check got NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_rerun_under_the_same_id_replaces_the_terminal_state() {
    let gateway = gateway();
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    lookup(&gateway, "metrics", "a").await.unwrap();
    gateway.supermetrics.respond_with(|_| Ok(Life::Running));
    tokio::time::advance(SECOND * 301).await;
    assert_eq!(
        state(&lookup(&gateway, "metrics", "a").await),
        JobState::Succeeded,
        "the answer does not wait"
    );
    gateway.spawner.idle().await;
    assert_eq!(state(&lookup(&gateway, "metrics", "a").await), JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn only_an_observed_job_can_expire() {
    let gateway = gateway();
    gateway.supermetrics.respond_with(|id| {
        if id.as_str() == "never" { Err(FetchError::NotFound) } else { Ok(Life::Running) }
    });
    assert_eq!(problem(lookup(&gateway, "metrics", "never").await), ProblemCode::NotFound);
    lookup(&gateway, "metrics", "seen").await.unwrap();
    gateway.supermetrics.respond_with(|_| Err(FetchError::NotFound));
    tokio::time::advance(SECOND * 3).await;
    assert_eq!(state(&lookup(&gateway, "metrics", "seen").await), JobState::Expired);
}

#[tokio::test(start_paused = true)]
async fn not_found_is_cached_only_briefly() {
    let gateway = gateway();
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    lookup(&gateway, "mind", "a").await.unwrap_err();
    tokio::time::advance(SECOND * 5).await;
    lookup(&gateway, "mind", "a").await.unwrap_err();
    assert_eq!(gateway.mindbridge.calls(), 1);
    tokio::time::advance(SECOND).await;
    gateway.mindbridge.respond_with(|_| Ok(Life::Queued));
    assert_eq!(state(&lookup(&gateway, "mind", "a").await), JobState::Queued);
}

type Make = Box<dyn Fn() -> FetchError + Send + Sync>;

/// Each error of an upstream that proves nothing about a job, with what clients receive.
fn upstream_errors() -> [(Make, StaleReason, ProblemCode, Retry); 6] {
    let throttled = || FetchError::Throttled { retry_after: SECOND * 30 };
    [
        (Box::new(throttled), StaleReason::Throttled, ProblemCode::Throttled, Retry::After(SECOND * 30)),
        (Box::new(unavailable), StaleReason::Unavailable, ProblemCode::Unavailable, Retry::Whenever),
        (Box::new(|| FetchError::TimedOut), StaleReason::TimedOut, ProblemCode::TimedOut, Retry::Whenever),
        (
            Box::new(|| FetchError::CredentialRejected),
            StaleReason::CredentialRejected,
            ProblemCode::CredentialRejected,
            Retry::Whenever,
        ),
        (
            Box::new(|| FetchError::Unconfigured),
            StaleReason::Unconfigured,
            ProblemCode::Unconfigured,
            Retry::Whenever,
        ),
        (
            Box::new(|| FetchError::BadAnswer(Detail::new("planted"))),
            StaleReason::BadAnswer,
            ProblemCode::BadAnswer,
            Retry::Whenever,
        ),
    ]
}

/// A gateway that has read the job `seen`, ten seconds before its upstream fails so.
async fn failing(make: Make) -> TestGateway {
    let gateway = gateway();
    lookup(&gateway, "mind", "seen").await.unwrap();
    gateway.mindbridge.respond_with(move |_| Err(make()));
    tokio::time::advance(SECOND * 10).await;
    gateway
}

#[tokio::test(start_paused = true)]
async fn an_upstream_error_marks_a_cached_answer_stale() {
    for (make, stale, ..) in upstream_errors() {
        let gateway = failing(make).await;
        let JobSnapshot { observation, age, stale: stale_reason, .. } =
            lookup(&gateway, "mind", "seen").await.unwrap();
        assert_eq!((observation.job.state(), stale_reason), (JobState::Running, Some(stale)));
        assert!(age >= SECOND * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_error_is_the_problem_of_an_uncached_job() {
    for (make, _, code, retry) in upstream_errors() {
        let gateway = failing(make).await;
        let unseen = lookup(&gateway, "mind", "unseen").await.unwrap_err();
        assert_eq!((unseen.code, unseen.retry), (code, retry));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_error_is_not_cached() {
    for (make, ..) in upstream_errors() {
        let gateway = failing(make).await;
        lookup(&gateway, "mind", "seen").await.unwrap();
        lookup(&gateway, "mind", "unseen").await.unwrap_err();
        gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
        let healed = lookup(&gateway, "mind", "seen").await.unwrap();
        assert_eq!((healed.observation.job.state(), healed.stale), (JobState::Succeeded, None));
        assert_eq!(state(&lookup(&gateway, "mind", "unseen").await), JobState::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_fetch_returns_an_internal_problem() {
    let gateway = gateway();
    lookup(&gateway, "mind", "seen").await.unwrap();
    tokio::time::advance(SECOND * 10).await;
    gateway.mindbridge.respond_with(|_| panic!("planted"));
    let lost = lookup(&gateway, "mind", "other").await;
    assert_eq!(problem(lost), ProblemCode::Internal, "a panic affects one fetch");
    assert_eq!(lookup(&gateway, "mind", "seen").await.unwrap().stale, Some(StaleReason::Internal));
    gateway.mindbridge.respond_with(|_| Ok(Life::Running));
    assert_eq!(state(&lookup(&gateway, "mind", "other").await), JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn ungranted_and_missing_jobs_return_the_same_problem() {
    let gateway = gateway();
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    let granted = Principal::new("granted", [SourceName::parse("mind").unwrap()]);
    let other = Principal::new("other", [SourceName::parse("metrics").unwrap()]);
    let execute = async |principal: &Principal, source: &str| {
        let Problem { code, retry, message, .. } =
            gateway.jobs.lookup_one(principal, reference(source, "a"), None).await.unwrap_err();
        (code, retry, message.replace(source, "SOURCE"))
    };
    let missing = execute(&granted, "mind").await;
    assert_eq!(execute(&other, "mind").await, missing);
    assert_eq!(execute(&other, "nowhere").await, missing);
}

#[tokio::test(start_paused = true)]
async fn an_ungranted_job_is_not_fetched() {
    let gateway = gateway();
    let other = Principal::new("other", [SourceName::parse("metrics").unwrap()]);
    for source in ["mind", "nowhere"] {
        gateway.jobs.lookup_one(&other, reference(source, "a"), None).await.unwrap_err();
    }
    assert_eq!(gateway.mindbridge.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_reference_is_rejected_with_its_field_name() {
    let gateway = gateway();
    let long = "x".repeat(10_240);
    let cases = [
        (reference("", "a"), "source must not be empty"),
        (
            reference("Mind", "a"),
            "source may contain only a-z, 0-9, - and _, starting with a letter or a digit",
        ),
        (reference("mind", ""), "externalId must not be empty"),
        (reference("mind", &long), "externalId is longer than 200 bytes"),
        (reference("mind", "../../admin"), "externalId may contain only letters, digits, - _ . ~ and :"),
        (reference("mind", ".."), "externalId must not consist of dots alone"),
        (reference("mind", "%2e%2e"), "externalId may contain only letters, digits, - _ . ~ and :"),
        (reference("mind", "a\u{0}b"), "externalId may contain only letters, digits, - _ . ~ and :"),
        (reference("metrics", "a.b"), "externalId may contain only letters, digits, - and _"),
        (RequestedRef::id("nonsense".to_owned()), "id is not a node ID of this gateway"),
        (RequestedRef::id(long.clone()), "id is not a node ID of this gateway"),
    ];
    for (reference, message) in cases {
        let problem = gateway.jobs.lookup_one(&Principal::local(), reference, None).await.unwrap_err();
        assert_eq!((problem.code, problem.message.as_str()), (ProblemCode::InvalidRef, message));
    }
    assert_eq!(gateway.mindbridge.calls() + gateway.supermetrics.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_id_in_two_sources_is_two_jobs() {
    let gateway = gateway();
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    let refs = [reference("mind", "a"), reference("metrics", "a")];
    let answers = gateway.jobs.lookup(&Principal::local(), &refs, None).await;
    assert_eq!((state(&answers[0]), state(&answers[1])), (JobState::Succeeded, JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn rows_are_paged_with_one_call_per_thousand_rows() {
    let gateway = gateway();
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    let job = lookup(&gateway, "metrics", "a").await.unwrap().observation;
    let (mut after, mut read) = (None::<String>, Vec::new());
    loop {
        let page = gateway
            .jobs
            .rows(&Principal::local(), &job, 90, after.as_deref())
            .await
            .unwrap()
            .expect("the job succeeded");
        read.extend(page.rows.iter().map(|(_, cells)| cells[0].get().to_owned()));
        after = page.rows.last().map(|(cursor, _)| cursor.clone());
        if !page.has_next {
            break;
        }
    }
    assert_eq!(read, (0..2_500).map(|row| row.to_string()).collect::<Vec<_>>(), "each row once, in order");
    assert_eq!(gateway.supermetrics.rows_requests.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn rows_after_an_invalid_cursor_are_rejected() {
    let gateway = gateway();
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    let job = lookup(&gateway, "metrics", "a").await.unwrap().observation;
    for bad in ["nonsense", "", "cm93MS8tMQ", "cm93MS8wMA"] {
        let refused = gateway.jobs.rows(&Principal::local(), &job, 10, Some(bad)).await.unwrap_err();
        assert_eq!(refused.code, ProblemCode::InvalidRef, "{bad:?}");
    }
}

/// A gateway that has read five jobs of each source, ten seconds ago; and a client that may read those of one.
async fn with_cached_jobs() -> (TestGateway, Principal) {
    let gateway = gateway();
    for number in 0..5 {
        lookup(&gateway, "mind", &format!("m{number}")).await.unwrap();
        lookup(&gateway, "metrics", &format!("s{number}")).await.unwrap();
    }
    tokio::time::advance(SECOND * 10).await;
    (gateway, Principal::new("granted", [SourceName::parse("mind").unwrap()]))
}

#[tokio::test(start_paused = true)]
async fn a_list_returns_cached_jobs_without_a_call() {
    let (gateway, granted) = with_cached_jobs().await;
    let calls = gateway.mindbridge.calls();
    let page = gateway.jobs.list(&granted, &JobListRequest::new(JobListFilter::default(), 3)).await.unwrap();
    assert_eq!(page.jobs[0].snapshot.stale, Some(StaleReason::NotRefreshed));
    assert_eq!(gateway.mindbridge.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_followed_job_is_stale_in_a_list_as_for_its_watchers() {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    let watch = gateway.jobs.watch(Principal::local(), vec![reference("mind", "a")], None);
    let mut watch = Box::pin(watch);
    watch.next().await.unwrap();
    tokio::time::sleep(SECOND * 600).await;
    let request = JobListRequest::new(JobListFilter::default(), 3);
    for _ in 0..40 {
        // at any time between two polls, which are half a minute apart by now
        let page = gateway.jobs.list(&Principal::local(), &request).await.unwrap();
        assert_eq!(page.jobs[0].snapshot.stale, None, "{:?} after it was read", page.jobs[0].snapshot.age);
        tokio::time::sleep(SECOND).await;
    }
    gateway.mindbridge.respond_with(|_| Err(unavailable()));
    tokio::time::sleep(SECOND * 60).await;
    let page = gateway.jobs.list(&Principal::local(), &request).await.unwrap();
    assert_eq!(page.jobs[0].snapshot.stale, Some(StaleReason::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_list_returns_jobs_of_granted_sources_only() {
    let (gateway, granted) = with_cached_jobs().await;
    let all = gateway.jobs.list(&granted, &JobListRequest::new(JobListFilter::default(), 20)).await.unwrap();
    assert_eq!((all.jobs.len(), all.has_next), (5, false));
    let foreign = JobListFilter { sources: vec!["metrics".to_owned()], ..JobListFilter::default() };
    assert!(gateway.jobs.list(&granted, &JobListRequest::new(foreign, 3)).await.unwrap().jobs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_list_continues_after_its_cursor() {
    let (gateway, granted) = with_cached_jobs().await;
    let filter = JobListFilter::default();
    let page = gateway.jobs.list(&granted, &JobListRequest::new(filter.clone(), 3)).await.unwrap();
    assert_eq!((page.jobs.len(), page.has_next), (3, true));
    let cursor = page.jobs[2].cursor.clone();
    let rest = gateway
        .jobs
        .list(&granted, &JobListRequest { after: Some(cursor), ..JobListRequest::new(filter, 3) })
        .await
        .unwrap();
    assert_eq!((rest.jobs.len(), rest.has_next), (2, false));
}

#[tokio::test(start_paused = true)]
async fn a_list_rejects_an_invalid_cursor() {
    let (gateway, granted) = with_cached_jobs().await;
    let request =
        JobListRequest { after: Some("nonsense".into()), ..JobListRequest::new(JobListFilter::default(), 3) };
    gateway.jobs.list(&granted, &request).await.unwrap_err();
}

/// A store whose next read arrives late: after it was read.
#[derive(Debug)]
struct LateReads {
    store: MemoryStore,
    is_late: AtomicBool,
}

impl JobStore for LateReads {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            let held = self.store.get(keys).await;
            if self.is_late.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(SECOND / 2).await;
            }
            held
        })
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        self.store.keep(new)
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        self.store.note_missing(key)
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        self.store.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        self.store.list(filter, after, limit)
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_ends_between_a_read_of_the_cache_and_the_single_flight_is_shared() {
    let store = Arc::new(LateReads { store: MemoryStore::new(retention()), is_late: AtomicBool::new(false) });
    let gateway = gateway_on(FOLLOW, Arc::new(RuntimeClock::default()), store.clone(), Arc::new(NoLedger));
    let first = lookup(&gateway, "metrics", "a");
    let second = async {
        // The first reads the cache before; its fetch takes 100 ms.
        tokio::time::sleep(SECOND / 20).await;
        store.is_late.store(true, Ordering::Relaxed);
        lookup(&gateway, "metrics", "a").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((state(&first), state(&second)), (JobState::Running, JobState::Running));
    assert_eq!(gateway.supermetrics.calls(), 1);
    tokio::time::sleep(SECOND * 10).await;
    lookup(&gateway, "metrics", "a").await.unwrap();
    assert_eq!(gateway.supermetrics.calls(), 2, "an older answer than allowed is fetched again");
}
