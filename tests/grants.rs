//! Authorization: clients restricted to sources, kinds, labels and tokens, and jobs that they may not read, by every
//! path. A forbidden job looks as if it did not exist: with the same message, calls and final update.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use jobgate::domain::error::{Problem, ProblemCode};
use jobgate::domain::principal::{CredentialInfo, Grant, Principal, Scope};
use jobgate::domain::source::Upstream;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::time::Instant;

use crate::support::ports::{FOLLOW, reference};
use fixture::{World, key, labels, name};

mod fixture;
mod random;
mod tokens;

const SECOND: Duration = Duration::from_secs(1);

/// A client restricted to one source and a scope.
fn narrowed(source: &str, scope: Scope) -> Principal {
    Principal::with_grant("narrowed", Grant::Sources(std::sync::Arc::new([(name(source), scope)].into())))
}

fn of_kinds(kinds: &[&str]) -> Scope {
    Scope { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), ..Scope::default() }
}

fn of_team(team: &str) -> Scope {
    Scope { labels: labels(&[("team", team)]), ..Scope::default() }
}

/// `mind` with running jobs of two kinds and without one; `metrics` with one job.
fn gateway() -> World {
    let world = World::new(&[("mind", Upstream::MindBridge), ("metrics", Upstream::Supermetrics)]);
    for (id, kind) in [("export1", Some("EXPORT")), ("report1", Some("REPORT")), ("kindless", None)] {
        world.put("mind", id, kind);
    }
    world.put("metrics", "query1", None);
    world
}

async fn sees(world: &World, principal: &Principal, source: &str, id: &str) -> bool {
    match world.jobs.lookup_one(principal, reference(source, id), None).await {
        Ok(_) => true,
        Err(problem) => {
            assert_eq!(problem.code, ProblemCode::NotFound);
            false
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_permits_only_its_kinds_and_labels() {
    let world = gateway();
    let all = Principal::local();
    let track = async |id: &str, words: &[(&str, &str)]| {
        world.jobs.track(&all, &[reference("mind", id)], &labels(words)).await.unwrap();
    };
    track("export1", &[("team", "blue"), ("tier", "1")]).await;
    track("report1", &[("team", "red")]).await;
    let both = Scope { labels: labels(&[("team", "blue")]), ..of_kinds(&["EXPORT", "OTHER"]) };
    let crossed = Scope { labels: labels(&[("team", "red")]), ..of_kinds(&["EXPORT"]) };
    for (scope, seen) in [
        (Scope::default(), &["export1", "report1", "kindless"][..]),
        (of_kinds(&["EXPORT"]), &["export1"]),
        (of_kinds(&["EXPORT", "REPORT"]), &["export1", "report1"]),
        (of_kinds(&["export"]), &[]),
        (of_kinds(&["EXPOR", "EXPORTS", " EXPORT"]), &[]),
        (of_team("blue"), &["export1"]),
        (of_team("Blue"), &[]),
        (Scope { labels: labels(&[("team", "blue"), ("tier", "2")]), ..Scope::default() }, &[]),
        (both, &["export1"]),
        (crossed, &[]),
    ] {
        let principal = narrowed("mind", scope);
        for id in ["export1", "report1", "kindless", "missing"] {
            assert_eq!(sees(&world, &principal, "mind", id).await, seen.contains(&id), "{principal:?} {id}");
        }
        assert!(!sees(&world, &principal, "metrics", "query1").await);
        let mut held = world.held(&principal, &JobListFilter::default(), 2).await;
        held.sort_unstable();
        let mut expected = seen.to_vec();
        expected.sort_unstable();
        assert_eq!(held, expected, "{principal:?}");
    }
}

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
    for trouble in
        [None, Some(FetchError::Unavailable(Detail::new("planted"))), Some(FetchError::TimedOut), None]
    {
        world.trouble("mind", trouble.clone());
        for round in 0..2 {
            let [hidden, missing] = [execute("report1").await, execute("missing").await];
            assert_eq!(hidden, missing, "{trouble:?} {round}");
            let code = if trouble.is_some() {
                ""
            } else {
                "job \"ID\" of source \"mind\" does not exist, or this client is not allowed to read it"
            };
            assert!(hidden.2.contains(code), "{hidden:?}");
        }
        tokio::time::sleep(SECOND * 10).await;
    }
    for principal in [&client, &narrowed("mind", of_team("blue"))] {
        let before = world.calls("metrics") + world.calls("mind");
        for (source, id) in [("metrics", "query1"), ("metrics", "missing"), ("nowhere", "query1")] {
            assert!(!sees(&world, principal, source, id).await);
        }
        assert_eq!(world.calls("metrics") + world.calls("mind"), before, "a forbidden job is not fetched");
    }
    let (labelled, before) = (narrowed("mind", of_team("blue")), world.calls("mind"));
    assert!(
        !sees(&world, &labelled, "mind", "report1").await && !sees(&world, &labelled, "mind", "no").await
    );
    assert_eq!(world.calls("mind"), before, "labels are checked without a call");
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

#[tokio::test(start_paused = true)]
async fn watching_a_hidden_job_ends_like_watching_a_missing_one() {
    let client = narrowed("mind", of_kinds(&["EXPORT"]));
    for trouble in [None, Some((10, 30)), Some((50, 70)), Some((0, 30))] {
        for ended in [false, true] {
            let mut described = Vec::new();
            for id in ["report1", "missing"] {
                let world = gateway();
                world.follow();
                if ended {
                    world.end("mind", "report1");
                }
                world.denial_between("mind", trouble);
                described.push(describe_updates(&world, &client, id).await);
                tokio::time::sleep(FOLLOW.unsubscribe_grace + SECOND).await;
                assert_eq!(world.jobs.followed(), 0);
                let calls = world.calls("mind");
                tokio::time::sleep(SECOND * 600).await;
                assert_eq!(world.calls("mind"), calls, "nothing is polled");
            }
            if trouble != Some((0, 30)) {
                assert_eq!(described[0], described[1], "to the millisecond: {trouble:?} {ended}");
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
            let expected = if trouble == Some((0, 30)) { &late[..] } else { &begins[..] };
            assert_eq!(numbers(&described[0]), expected, "{trouble:?} {ended}");
            assert_eq!(numbers(&described[1]), expected, "{trouble:?} {ended}");
            let (last, before) = described[0].split_last().unwrap();
            let first = before.last().unwrap();
            assert_eq!((last.4, last.5), (true, first.5 + FOLLOW.missing_for));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_job_is_not_found_for_an_unauthorized_client() {
    let world = gateway();
    world.follow();
    let mut theirs = world.jobs.watch(Principal::local(), vec![reference("mind", "report1")], None).boxed();
    theirs.next().await.unwrap();
    tokio::time::sleep(SECOND * 20).await;
    let described = describe_updates(&world, &narrowed("mind", of_kinds(&["EXPORT"])), "report1").await;
    let numbers: Vec<_> = described.iter().map(|one| (one.0, one.1, one.3, one.4)).collect();
    let expected = [
        (UpdateKind::Snapshot, ProblemCode::NotFound, 1, false),
        (UpdateKind::Ended, ProblemCode::NotFound, 2, true),
    ];
    assert_eq!(numbers, expected);
    world.end("mind", "report1");
    let last = theirs.next().await.unwrap();
    assert!(last.is_final && last.answer.is_ok(), "an authorized client still receives updates: {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_not_found_when_access_is_lost() {
    let all = Principal::local();
    let refs = || vec![reference("mind", "export1")];
    for by_label in [true, false] {
        let world = gateway();
        world.follow();
        world.jobs.track(&all, &refs(), &labels(&[("team", "blue")])).await.unwrap();
        let scope = if by_label { of_team("blue") } else { of_kinds(&["EXPORT"]) };
        let mut watch = world.jobs.watch(narrowed("mind", scope.clone()), refs(), None).boxed();
        let mut feed = world.jobs.feed(narrowed("mind", scope.clone()), JobListFilter::default()).boxed();
        assert!(watch.next().await.unwrap().answer.is_ok());
        world.change("mind", "export1");
        assert!(watch.next().await.unwrap().answer.is_ok());
        let client = narrowed("mind", scope);
        let waiting = world.jobs.await_end(&client, reference("mind", "export1"), SECOND * 19);
        let changing = async {
            tokio::time::sleep(SECOND).await;
            if by_label {
                // the update in the feed was queued while the label existed
                assert_eq!(world.jobs.untrack(&all, &refs()).await, 1);
            } else {
                world.put("mind", "export1", Some("REPORT"));
            }
        };
        let (waited, ()) = tokio::join!(waiting, changing);
        let last = watch.next().await.unwrap();
        assert_eq!((last.kind, last.answer.unwrap_err().code), (UpdateKind::Ended, ProblemCode::NotFound));
        assert!(last.is_final && watch.next().await.is_none());
        assert_eq!(waited.unwrap_err().code, ProblemCode::NotFound);
        let fed = tokio::time::timeout(SECOND * 60, feed.next()).await;
        assert!(fed.is_err(), "{by_label} {fed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn track_and_untrack_change_only_what_the_grant_permits() {
    let world = gateway();
    world.follow();
    let all = Principal::local();
    let [blue, red] = [labels(&[("team", "blue")]), labels(&[("team", "red")])];
    world.jobs.track(&all, &[reference("mind", "export1")], &blue).await.unwrap();
    let (mine, foreign, missing) =
        (reference("mind", "export1"), reference("mind", "report1"), reference("mind", "missing"));
    let refs = [mine.clone(), foreign.clone(), missing.clone()];
    let seen = |answers: Vec<Result<_, Problem>>| answers.iter().map(Result::is_ok).collect::<Vec<_>>();
    let labelled = narrowed("mind", of_team("blue"));
    assert_eq!(seen(world.jobs.track(&labelled, &refs, &red).await.unwrap()), [true, false, false]);
    assert_eq!(world.jobs.labels(&key("mind", "export1")), Some(blue.clone()), "it keeps its earlier labels");
    assert_eq!(world.jobs.labels(&key("mind", "report1")), None, "a client's own label grants nothing");
    assert_eq!(world.jobs.untrack(&labelled, &refs).await, 0);
    assert!(sees(&world, &labelled, "mind", "export1").await);

    world.jobs.track(&all, std::slice::from_ref(&foreign), &blue).await.unwrap();
    let kinds = narrowed("mind", of_kinds(&["EXPORT"]));
    assert_eq!(seen(world.jobs.track(&kinds, &refs, &red).await.unwrap()), [true, false, false]);
    assert_eq!(world.jobs.labels(&key("mind", "export1")), Some(red));
    assert_eq!(world.jobs.labels(&key("mind", "report1")), Some(blue.clone()));
    assert_eq!(world.jobs.untrack(&kinds, &refs).await, 1, "only the readable jobs");
    assert_eq!(world.jobs.labels(&key("mind", "report1")), Some(blue));

    let pass = CredentialInfo {
        jobs: Some(BTreeSet::from([key("mind", "export1")]).into()),
        ..CredentialInfo::default()
    };
    let token = Principal::local().holding(pass);
    assert_eq!(seen(world.jobs.track(&token, &refs, &labels(&[])).await.unwrap()), [true, false, false]);
    assert_eq!(world.jobs.labels(&key("mind", "export1")), None, "a token tracks nothing");
    assert_eq!(world.jobs.untrack(&token, &[foreign]).await, 0);
}

#[tokio::test(start_paused = true)]
async fn pages_are_filled_after_hidden_jobs_are_filtered_out() {
    let world = gateway();
    for number in 0..50 {
        let kind = if number % 7 == 0 { "EXPORT" } else { "REPORT" };
        world.put("mind", &format!("many{number:02}"), Some(kind));
    }
    world.lookup_all().await;
    let blue = [reference("mind", "many07"), reference("mind", "many08"), reference("mind", "many14")];
    world.jobs.track(&Principal::local(), &blue, &labels(&[("team", "blue")])).await.unwrap();
    let exports = ["export1", "many00", "many07", "many14", "many21", "many28", "many35", "many42", "many49"];
    let blue = JobListFilter { labels: labels(&[("team", "blue")]), ..JobListFilter::default() };
    for size in [1, 2, 3, 9, 10, 100] {
        for (scope, filter, expected) in [
            (of_kinds(&["EXPORT"]), JobListFilter::default(), &exports[..]),
            (of_kinds(&["EXPORT"]), blue.clone(), &["many07", "many14"]),
            (of_team("blue"), JobListFilter::default(), &["many07", "many08", "many14"]),
            (of_team("red"), blue.clone(), &[]),
        ] {
            let client = narrowed("mind", scope);
            assert_eq!(world.held(&client, &filter, size).await, expected, "{client:?} {size}");
        }
    }
}
