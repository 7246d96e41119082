//! The lookup use case on a paused clock: what is shared, what is kept, and what a caller is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jobgate::domain::error::{Problem, ProblemCode, Retry};
use jobgate::domain::id::SourceName;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::access::JobRef;
use jobgate::jobs::answer::{Answer, Seen, StaleReason};
use jobgate::jobs::list::JobFilter;
use jobgate::ports::upstream::{Detail, LookError};

use crate::support::ports::{House, failed, house, reference};

const SECOND: Duration = Duration::from_secs(1);

async fn look(house: &House, source: &str, id: &str) -> Answer {
    house.jobs.lookup_one(&Principal::local(), reference(source, id), None).await
}

fn state(answer: &Answer) -> JobState {
    answer.as_ref().unwrap().observation.job.state()
}

fn problem(answer: Answer) -> ProblemCode {
    answer.unwrap_err().code
}

fn unavailable() -> LookError {
    LookError::Unavailable(Detail::new("planted"))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_equal_questions_are_one_call() {
    let house = house();
    let answers = join_all((0..1_000).map(|_| look(&house, "metrics", "a"))).await;
    assert!(answers.iter().all(|answer| state(answer) == JobState::Running));
    assert_eq!(house.metrics.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_jobs_of_one_source_are_as_many_calls_as_pages() {
    let house = house();
    let mut refs: Vec<JobRef> = (0..200).map(|number| reference("mind", &format!("job{number}"))).collect();
    refs[199] = refs[0].clone();
    let answers = house.jobs.lookup(&Principal::local(), &refs, None).await;
    let ids: Vec<&str> = answers
        .iter()
        .map(|answer| answer.as_ref().unwrap().observation.job.key.external_id.as_str())
        .collect();
    let expected: Vec<String> =
        (0..199).map(|number| format!("job{number}")).chain(["job0".to_owned()]).collect();
    assert_eq!(ids, expected, "same order, same length");
    let asked = house.mind.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked.iter().flatten().count(), 199, "a job named twice is asked for once");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_does_not_cancel_the_others() {
    let house = Arc::new(house());
    let leader = tokio::time::timeout(SECOND / 20, look(&house, "mind", "a")).await;
    assert!(leader.is_err(), "the leader left while its fetch was under way");
    assert_eq!(state(&look(&house, "mind", "a").await), JobState::Running);
    assert_eq!(house.mind.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_since_when_its_state_is_known() {
    let house = house();
    let mut times = Vec::new();
    for life in [Life::Queued, Life::Running, Life::Running, Life::Succeeded] {
        house.mind.says(move |_| Ok(life.clone()));
        let seen =
            house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), Some(Duration::ZERO)).await;
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

#[tokio::test(start_paused = true)]
async fn an_unfinished_job_is_as_old_as_allowed() {
    let house = house();
    look(&house, "mind", "a").await.unwrap();
    tokio::time::advance(SECOND * 2).await;
    let held = look(&house, "mind", "a").await.unwrap();
    assert_eq!((house.mind.calls(), held.age, held.stale), (1, SECOND * 2, None));
    let max = Some(SECOND);
    let asked = house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!((house.mind.calls(), asked.age), (2, Duration::ZERO));
    tokio::time::advance(SECOND * 100).await;
    let max = Some(SECOND * 100);
    house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!(house.mind.calls(), 2, "whoever allows an older answer gets it for free");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_never_asked_for_again() {
    let house = house();
    house.mind.says(|_| Ok(failed()));
    look(&house, "mind", "a").await.unwrap();
    tokio::time::advance(SECOND * 10_000).await;
    let max = Some(Duration::ZERO);
    let answer = house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap();
    assert_eq!((house.mind.calls(), answer.stale, answer.age), (1, None, SECOND * 10_000));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_job_outlives_an_upstream_404() {
    let house = house();
    house.metrics.says(|_| Ok(Life::Succeeded));
    look(&house, "metrics", "a").await.unwrap();
    house.metrics.says(|_| Err(LookError::NotFound));
    for _ in 0..3 {
        tokio::time::advance(SECOND * 301).await;
        assert_eq!(state(&look(&house, "metrics", "a").await), JobState::Succeeded);
        house.spawner.idle().await;
    }
    assert_eq!(house.metrics.calls(), 4, "each check behind the answer was told that it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_second_run_under_the_same_id_shows_itself() {
    let house = house();
    house.metrics.says(|_| Ok(Life::Succeeded));
    look(&house, "metrics", "a").await.unwrap();
    house.metrics.says(|_| Ok(Life::Running));
    tokio::time::advance(SECOND * 301).await;
    assert_eq!(state(&look(&house, "metrics", "a").await), JobState::Succeeded, "the answer does not wait");
    house.spawner.idle().await;
    assert_eq!(state(&look(&house, "metrics", "a").await), JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn only_what_was_seen_can_expire() {
    let house = house();
    house
        .metrics
        .says(|id| if id.as_str() == "never" { Err(LookError::NotFound) } else { Ok(Life::Running) });
    assert_eq!(problem(look(&house, "metrics", "never").await), ProblemCode::NotFound);
    look(&house, "metrics", "seen").await.unwrap();
    house.metrics.says(|_| Err(LookError::NotFound));
    tokio::time::advance(SECOND * 3).await;
    assert_eq!(state(&look(&house, "metrics", "seen").await), JobState::Expired);
}

#[tokio::test(start_paused = true)]
async fn not_found_is_believed_briefly() {
    let house = house();
    house.mind.says(|_| Err(LookError::NotFound));
    look(&house, "mind", "a").await.unwrap_err();
    tokio::time::advance(SECOND * 5).await;
    look(&house, "mind", "a").await.unwrap_err();
    assert_eq!(house.mind.calls(), 1);
    tokio::time::advance(SECOND).await;
    house.mind.says(|_| Ok(Life::Queued));
    assert_eq!(state(&look(&house, "mind", "a").await), JobState::Queued);
}

#[tokio::test(start_paused = true)]
async fn trouble_upstream_is_told_beside_the_older_answer_and_never_kept() {
    type Make = Box<dyn Fn() -> LookError + Send + Sync>;
    let throttled = || LookError::Throttled { retry_after: SECOND * 30 };
    let cases: [(Make, StaleReason, ProblemCode, Retry); 6] = [
        (Box::new(throttled), StaleReason::Throttled, ProblemCode::Throttled, Retry::After(SECOND * 30)),
        (Box::new(unavailable), StaleReason::Unavailable, ProblemCode::Unavailable, Retry::Whenever),
        (Box::new(|| LookError::TimedOut), StaleReason::TimedOut, ProblemCode::TimedOut, Retry::Whenever),
        (
            Box::new(|| LookError::CredentialRejected),
            StaleReason::CredentialRejected,
            ProblemCode::CredentialRejected,
            Retry::Whenever,
        ),
        (
            Box::new(|| LookError::Unconfigured),
            StaleReason::Unconfigured,
            ProblemCode::Unconfigured,
            Retry::Whenever,
        ),
        (
            Box::new(|| LookError::BadAnswer(Detail::new("planted"))),
            StaleReason::BadAnswer,
            ProblemCode::BadAnswer,
            Retry::Whenever,
        ),
    ];
    for (make, stale, code, retry) in cases {
        let house = house();
        look(&house, "mind", "seen").await.unwrap();
        house.mind.says(move |_| Err(make()));
        tokio::time::advance(SECOND * 10).await;
        let Seen { observation, age, stale: told, .. } = look(&house, "mind", "seen").await.unwrap();
        assert_eq!((observation.job.state(), told), (JobState::Running, Some(stale)));
        assert!(age >= SECOND * 10);
        let unseen = look(&house, "mind", "unseen").await.unwrap_err();
        assert_eq!((unseen.code, unseen.retry), (code, retry));
        house.mind.says(|_| Ok(Life::Succeeded));
        let healed = look(&house, "mind", "seen").await.unwrap();
        assert_eq!((healed.observation.job.state(), healed.stale), (JobState::Succeeded, None));
        assert_eq!(state(&look(&house, "mind", "unseen").await), JobState::Succeeded, "an error is not kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_answered_in_time_whatever_the_upstream_does() {
    let house = house();
    look(&house, "mind", "seen").await.unwrap();
    tokio::time::advance(SECOND * 10).await;
    house.mind.says(|_| panic!("planted"));
    let lost = look(&house, "mind", "other").await;
    assert_eq!(problem(lost), ProblemCode::Internal, "a panic costs one look");
    assert_eq!(look(&house, "mind", "seen").await.unwrap().stale, Some(StaleReason::Internal));
    house.mind.says(|_| Ok(Life::Running));
    assert_eq!(state(&look(&house, "mind", "other").await), JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn foreign_missing_and_unknown_look_the_same() {
    let house = house();
    house.mind.says(|_| Err(LookError::NotFound));
    let granted = Principal::new("granted", [SourceName::parse("mind").unwrap()]);
    let other = Principal::new("other", [SourceName::parse("metrics").unwrap()]);
    let ask = async |principal: &Principal, source: &str| {
        let Problem { code, retry, message, .. } =
            house.jobs.lookup_one(principal, reference(source, "a"), None).await.unwrap_err();
        (code, retry, message.replace(source, "SOURCE"))
    };
    let missing = ask(&granted, "mind").await;
    let calls = house.mind.calls();
    assert_eq!(ask(&other, "mind").await, missing);
    assert_eq!(ask(&other, "nowhere").await, missing);
    assert_eq!(house.mind.calls(), calls, "nothing is asked for what may not be read");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_reference_names_its_field_and_asks_nothing() {
    let house = house();
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
        (JobRef::Id("nonsense".to_owned()), "id is not a node ID of this gateway"),
        (JobRef::Id(long.clone()), "id is not a node ID of this gateway"),
    ];
    for (reference, message) in cases {
        let problem = house.jobs.lookup_one(&Principal::local(), reference, None).await.unwrap_err();
        assert_eq!((problem.code, problem.message.as_str()), (ProblemCode::InvalidRef, message));
    }
    assert_eq!(house.mind.calls() + house.metrics.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_id_in_two_sources_is_two_jobs() {
    let house = house();
    house.mind.says(|_| Ok(Life::Succeeded));
    let refs = [reference("mind", "a"), reference("metrics", "a")];
    let answers = house.jobs.lookup(&Principal::local(), &refs, None).await;
    assert_eq!((state(&answers[0]), state(&answers[1])), (JobState::Succeeded, JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn rows_come_by_page_and_cost_a_call_for_a_thousand() {
    let house = house();
    house.metrics.says(|_| Ok(Life::Succeeded));
    let job = look(&house, "metrics", "a").await.unwrap().observation;
    let (mut after, mut read) = (None::<String>, Vec::new());
    loop {
        let page = house
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
    assert_eq!(house.metrics.rows_asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    for bad in ["nonsense", "", "cm93MS8tMQ", "cm93MS8wMA"] {
        let refused = house.jobs.rows(&Principal::local(), &job, 10, Some(bad)).await.unwrap_err();
        assert_eq!(refused.code, ProblemCode::InvalidRef, "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_what_is_held_of_the_sources_one_may_read() {
    let house = house();
    for number in 0..5 {
        look(&house, "mind", &format!("m{number}")).await.unwrap();
        look(&house, "metrics", &format!("s{number}")).await.unwrap();
    }
    let granted = Principal::new("granted", [SourceName::parse("mind").unwrap()]);
    let calls = house.mind.calls();
    tokio::time::advance(SECOND * 10).await;
    let filter = JobFilter::default();
    let page = house.jobs.list(&granted, &filter, 3, None).await.unwrap();
    assert_eq!((page.jobs.len(), page.has_next), (3, true));
    assert_eq!(page.jobs[0].stale, Some(StaleReason::NotAsked));
    let cursor = page.jobs[2].observation.job.key.node_id();
    let rest = house.jobs.list(&granted, &filter, 3, Some(&cursor)).await.unwrap();
    assert_eq!((rest.jobs.len(), rest.has_next), (2, false));
    let foreign = JobFilter { sources: vec!["metrics".to_owned()], ..JobFilter::default() };
    assert!(house.jobs.list(&granted, &foreign, 3, None).await.unwrap().jobs.is_empty());
    assert_eq!(house.mind.calls(), calls);
    house.jobs.list(&granted, &filter, 3, Some("nonsense")).await.unwrap_err();
}
