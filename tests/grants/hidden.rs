//! Jobs that a client may not read: each answer, update and upstream call is the same as for a missing job.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use jobgate::domain::error::{Problem, ProblemCode};
use jobgate::domain::principal::Principal;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::time::Instant;

use super::fixture::World;
use super::{SECOND, gateway, narrowed, of_kinds, of_team, sees};
use crate::support::ports::{FOLLOW, reference};

#[tokio::test(start_paused = true)]
async fn a_hidden_job_is_indistinguishable_from_a_missing_one() {
    let world = gateway();
    world.lookup_all().await;
    let client = narrowed("mind", of_kinds(&["EXPORT"]));
    let execute = async |id: &str| {
        let before = world.calls("mind");
        let problem = world.jobs.lookup_one(&client, reference("mind", id), None).await.unwrap_err();
        let Problem { code, retry, message, .. } = problem;
        (code, retry, message.replace(id, "ID"), world.calls("mind") - before)
    };
    tokio::time::sleep(SECOND * 10).await;
    for error in
        [None, Some(FetchError::Unavailable(Detail::new("planted"))), Some(FetchError::TimedOut), None]
    {
        world.fail_with("mind", error.clone());
        for round in 0..2 {
            let [hidden, missing] = [execute("report1").await, execute("missing").await];
            assert_eq!(hidden, missing, "{error:?} {round}");
            let code = if error.is_some() {
                ""
            } else {
                "job \"ID\" of source \"mind\" does not exist, or this client is not allowed to read it"
            };
            assert!(hidden.2.contains(code), "{hidden:?}");
        }
        tokio::time::sleep(SECOND * 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_forbidden_source_is_not_fetched() {
    let world = gateway();
    for scope in [of_kinds(&["EXPORT"]), of_team("blue")] {
        let client = narrowed("mind", scope);
        for (source, id) in [("metrics", "query1"), ("metrics", "missing"), ("nowhere", "query1")] {
            assert!(!sees(&world, &client, source, id).await);
        }
    }
    assert_eq!((world.calls("metrics"), world.calls("mind")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn labels_are_checked_without_an_upstream_call() {
    let world = gateway();
    world.lookup_all().await;
    let (client, before) = (narrowed("mind", of_team("blue")), world.calls("mind"));
    for id in ["report1", "missing"] {
        assert!(!sees(&world, &client, "mind", id).await);
    }
    assert_eq!(world.calls("mind"), before);
}

/// An update of a job that does not exist, and when it arrived.
type DescribedUpdate = (UpdateKind, ProblemCode, String, u64, bool, Duration);

async fn describe_updates(world: &World, principal: &Principal, id: &str) -> Vec<DescribedUpdate> {
    let start = Instant::now();
    let updates = world.jobs.watch(principal.clone(), vec![reference("mind", id)], None);
    let describe_updates = updates.map(|WatchUpdate { kind, answer, sequence, is_final, .. }| {
        let Problem { code, message, .. } = answer.unwrap_err();
        (kind, code, message.replace(id, "ID"), sequence, is_final, start.elapsed())
    });
    describe_updates.collect().await
}

/// From when to when every fetch fails, in seconds after the start of the watch.
type Failure = Option<(u64, u64)>;

/// The first fetches fail.
const AT_FIRST: Failure = Some((0, 30));
const FAILURES: [Failure; 4] = [None, Some((10, 30)), Some((50, 70)), AT_FIRST];

/// A polling gateway whose upstream fails for a while, and whose hidden job is running or completed.
fn failing(failure: Failure, ended: bool) -> World {
    let world = gateway();
    world.follow();
    if ended {
        world.end("mind", "report1");
    }
    world.fail_between("mind", failure);
    world
}

#[tokio::test(start_paused = true)]
async fn watching_a_hidden_job_ends_like_watching_a_missing_one() {
    let client = narrowed("mind", of_kinds(&["EXPORT"]));
    for failure in FAILURES {
        for ended in [false, true] {
            let mut described = Vec::new();
            for id in ["report1", "missing"] {
                let world = failing(failure, ended);
                described.push(describe_updates(&world, &client, id).await);
            }
            if failure != AT_FIRST {
                assert_eq!(described[0], described[1], "to the millisecond: {failure:?} {ended}");
            }
            let numbers = |described: &[DescribedUpdate]| {
                described.iter().map(|one| (one.0, one.1, one.3)).collect::<Vec<_>>()
            };
            let begins = [
                (UpdateKind::Snapshot, ProblemCode::NotFound, 1),
                (UpdateKind::Ended, ProblemCode::NotFound, 2),
            ];
            let late = [
                (UpdateKind::Snapshot, ProblemCode::TimedOut, 1),
                (UpdateKind::Changed, ProblemCode::NotFound, 2),
                (UpdateKind::Ended, ProblemCode::NotFound, 3),
            ];
            let expected = if failure == AT_FIRST { &late[..] } else { &begins[..] };
            assert_eq!(numbers(&described[0]), expected, "{failure:?} {ended}");
            assert_eq!(numbers(&described[1]), expected, "{failure:?} {ended}");
            let (last, before) = described[0].split_last().unwrap();
            let first = before.last().unwrap();
            assert_eq!((last.4, last.5), (true, first.5 + FOLLOW.missing_for));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hidden_job_is_not_polled_after_its_watch_ends() {
    let client = narrowed("mind", of_kinds(&["EXPORT"]));
    for failure in FAILURES {
        for (id, ended) in [("report1", false), ("report1", true), ("missing", false)] {
            let world = failing(failure, ended);
            describe_updates(&world, &client, id).await;
            tokio::time::sleep(FOLLOW.unsubscribe_grace + SECOND).await;
            assert_eq!(world.jobs.followed(), 0);
            let calls = world.calls("mind");
            tokio::time::sleep(SECOND * 600).await;
            assert_eq!(world.calls("mind"), calls, "{failure:?} {id} {ended}");
        }
    }
}

/// A job that an authorized client watches for a while before another client does.
async fn watched() -> (World, BoxStream<'static, WatchUpdate>) {
    let world = gateway();
    world.follow();
    let mut theirs = world.jobs.watch(Principal::local(), vec![reference("mind", "report1")], None).boxed();
    theirs.next().await.unwrap();
    tokio::time::sleep(SECOND * 20).await;
    (world, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_watched_job_is_not_found_for_an_unauthorized_client() {
    let (world, _theirs) = watched().await;
    let described = describe_updates(&world, &narrowed("mind", of_kinds(&["EXPORT"])), "report1").await;
    let numbers: Vec<_> = described.iter().map(|one| (one.0, one.1, one.3, one.4)).collect();
    let expected = [
        (UpdateKind::Snapshot, ProblemCode::NotFound, 1, false),
        (UpdateKind::Ended, ProblemCode::NotFound, 2, true),
    ];
    assert_eq!(numbers, expected);
}

#[tokio::test(start_paused = true)]
async fn an_unauthorized_watch_does_not_end_an_authorized_one() {
    let (world, mut theirs) = watched().await;
    describe_updates(&world, &narrowed("mind", of_kinds(&["EXPORT"])), "report1").await;
    world.end("mind", "report1");
    let last = theirs.next().await.unwrap();
    assert!(last.is_final && last.answer.is_ok(), "{last:?}");
}
