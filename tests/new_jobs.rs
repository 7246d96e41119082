//! A job that was created a moment ago: its upstream may report it only a second later, and a caller waits for it.

use std::time::Duration;

use jobgate::domain::error::{Problem, ProblemCode, Retry};
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::ports::upstream::FetchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, FRESHNESS, TestGateway, gateway, reference};
use crate::support::server::{Setup, external};
use crate::support::wire;

const SECOND: Duration = Duration::from_secs(1);

/// A gateway with a running poll loop, whose jobs exist upstream from this time on and complete two seconds later.
fn gateway_fresh_for(span: Duration) -> TestGateway {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    let start = Instant::now();
    for source in [&gateway.mindbridge, &gateway.supermetrics] {
        source.respond_with(move |_| match start.elapsed() {
            early if early < span => Err(FetchError::NotFound),
            running if running < span + SECOND * 2 => Ok(Life::Running),
            _ => Ok(Life::Succeeded),
        });
    }
    gateway
}

fn retry(problem: &Problem) -> (ProblemCode, Retry) {
    (problem.code, problem.retry)
}

const AGAIN: (ProblemCode, Retry) = (ProblemCode::NotFound, Retry::After(FRESHNESS.missing_for));
const NEVER: (ProblemCode, Retry) = (ProblemCode::NotFound, Retry::Never);

#[tokio::test(start_paused = true)]
async fn a_wait_succeeds_for_a_job_that_appears_later() {
    for source in ["mind", "metrics"] {
        let gateway = gateway_fresh_for(SECOND);
        let answer = gateway.jobs.await_end(&Principal::local(), reference(source, "a"), SECOND * 20).await;
        assert_eq!(answer.unwrap().observation.job.state(), JobState::Succeeded, "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_missing_job_ends_at_its_timeout() {
    let gateway = gateway_fresh_for(SECOND * 86_400);
    let start = Instant::now();
    let answer = gateway.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 5).await;
    assert_eq!((retry(&answer.unwrap_err()), start.elapsed()), (AGAIN, SECOND * 5));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_missing_job_ends_after_missing_for() {
    // shorter than any wait, so that it ends this one
    let follow = jobgate::jobs::FollowSettings { missing_for: SECOND * 7, ..FOLLOW };
    let gateway = crate::support::ports::fixture(follow);
    gateway.jobs.start_following(CancellationToken::new());
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    let start = Instant::now();
    let answer = gateway.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 20).await;
    let lasted = start.elapsed();
    assert_eq!(retry(&answer.unwrap_err()), NEVER);
    assert!(lasted >= SECOND * 7 && lasted < SECOND * 8, "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn not_found_is_retryable_until_missing_for_is_over() {
    let gateway = gateway_fresh_for(SECOND * 86_400);
    let me = Principal::local();
    let execute = async |max| {
        let answers =
            gateway.jobs.lookup(&me, &[reference("mind", "a"), reference("nowhere", "a")], max).await;
        answers.into_iter().map(|answer| retry(&answer.unwrap_err())).collect::<Vec<_>>()
    };
    for second in 0..120_u64 {
        // counted from the first answer, a tenth of a second after the first request
        let expected = if Duration::from_secs(second) <= FOLLOW.missing_for { AGAIN } else { NEVER };
        let start = Instant::now();
        assert_eq!(execute((second % 7 == 0).then_some(Duration::ZERO)).await, [expected; 2], "{second}");
        tokio::time::sleep((start + SECOND).saturating_duration_since(Instant::now())).await;
    }
}

#[tokio::test]
async fn graphql_returns_the_retry_delay_of_not_found() {
    let rig = Setup::default().start().await;
    let query = "query($ref: JobRef!) {
        job(ref: $ref) { ...P } jobs(refs: [$ref]) { ...P } jobAwait(ref: $ref, timeout: \"1s\") { ...P } }
        fragment P on JobResult { ... on JobProblem { code retryable retryAfterMs } }";
    let answer = rig.execute(query, serde_json::json!({ "ref": external("mind", "a") })).await.data();
    let problem = serde_json::json!({ "code": "NOT_FOUND", "retryable": true, "retryAfterMs": 5000 });
    let expected = serde_json::json!({ "job": problem, "jobs": [problem], "jobAwait": problem });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn rest_returns_the_retry_delay_of_not_found() {
    let rig = Setup::default().start().await;
    for headers in [&[][..], &[("prefer", "wait=1")][..]] {
        let request = wire::request("GET", "/v1/jobs/mind/a", headers, "");
        let reply = wire::exchange(rig.public, &request).await;
        let head = reply.head.to_lowercase();
        assert!(reply.status == 404 && head.contains("\r\nretry-after: 5\r\n"), "{head}");
    }
}
