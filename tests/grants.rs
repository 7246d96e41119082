//! Authorization: clients restricted to sources, kinds, labels and tokens, and jobs that they may not read, by every
//! path. A forbidden job looks as if it did not exist: with the same message, calls and final update.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::principal::{CredentialInfo, CredentialKind, Grant, Principal, Scope};
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};

use crate::support::ports::{feed, reference};
use fixture::{World, key, labels, name};

mod fixture;
mod hidden;
mod random;
mod shared;
mod tokens;
mod viewer;

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

/// A client with a watch and a feed that loses its access to the job while it waits.
struct LostAccess {
    watch: BoxStream<'static, WatchUpdate>,
    feed: BoxStream<'static, WatchUpdate>,
    waited: Result<(), ProblemCode>,
}

/// Removes the label of the job, or changes its kind.
async fn lose_access(by_label: bool) -> LostAccess {
    let all = Principal::local();
    let refs = || vec![reference("mind", "export1")];
    let world = gateway();
    world.follow();
    world.jobs.track(&all, &refs(), &labels(&[("team", "blue")])).await.unwrap();
    let scope = if by_label { of_team("blue") } else { of_kinds(&["EXPORT"]) };
    let client = narrowed("mind", scope);
    let mut watch = world.jobs.watch(client.clone(), refs(), None).boxed();
    let feed = feed(&world.jobs, client.clone(), JobListFilter::default());
    assert!(watch.next().await.unwrap().answer.is_ok());
    world.change("mind", "export1");
    assert!(watch.next().await.unwrap().answer.is_ok());
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
    LostAccess { watch, feed, waited: waited.map(drop).map_err(|problem| problem.code) }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_feed_has_no_job_whose_access_was_lost() {
    let all = Principal::local();
    let refs = || vec![reference("mind", "export1")];
    let world = gateway();
    world.jobs.track(&all, &refs(), &labels(&[("team", "blue")])).await.unwrap();
    let client = narrowed("mind", of_team("blue"));
    let begin = async |after: &str| {
        let mut feed = world.jobs.feed(client.clone(), JobListFilter::default(), Some(after)).boxed();
        let begin = feed.next().await.unwrap();
        (feed, begin.cursor.to_string())
    };
    let (_, cursor) = begin("").await;
    world.change("mind", "export1");
    tokio::time::sleep(SECOND * 10).await;
    world.lookup_all().await;
    let (mut feed, _) = begin(&cursor).await;
    assert!(feed.next().now_or_never().is_some(), "it may see the change");
    assert_eq!(world.jobs.untrack(&all, &refs()).await, 1);
    let (mut feed, _) = begin(&cursor).await;
    assert!(feed.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_not_found_when_access_is_lost() {
    for by_label in [true, false] {
        let mut watch = lose_access(by_label).await.watch;
        let last = watch.next().await.unwrap();
        assert_eq!((last.kind, last.answer.unwrap_err().code), (UpdateKind::Ended, ProblemCode::NotFound));
        assert!(last.is_final && watch.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_not_found_when_access_is_lost() {
    for by_label in [true, false] {
        assert_eq!(lose_access(by_label).await.waited, Err(ProblemCode::NotFound), "{by_label}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_feed_omits_a_queued_update_when_access_is_lost() {
    for by_label in [true, false] {
        let mut feed = lose_access(by_label).await.feed;
        let fed = tokio::time::timeout(SECOND * 60, feed.next()).await;
        assert!(fed.is_err(), "{by_label} {fed:?}");
    }
}

/// A gateway on which the job `export1` has the label `blue`; that label and another one.
async fn labelled() -> (World, [Labels; 2]) {
    let world = gateway();
    world.follow();
    let [blue, red] = [labels(&[("team", "blue")]), labels(&[("team", "red")])];
    world.jobs.track(&Principal::local(), &[reference("mind", "export1")], &blue).await.unwrap();
    (world, [blue, red])
}

/// Tracks `export1`, `report1` and a missing job as this client, then untracks them: which were tracked, their labels
/// meanwhile, and how many were untracked.
async fn track_all(
    world: &World,
    client: &Principal,
    words: &Labels,
) -> ([bool; 3], [Option<Labels>; 2], usize) {
    let refs = ["export1", "report1", "missing"].map(|id| reference("mind", id));
    let tracked = world.jobs.track(client, &refs, words).await.unwrap();
    let tracked: Vec<bool> = tracked.iter().map(Result::is_ok).collect();
    let held = ["export1", "report1"].map(|id| world.jobs.labels(&key("mind", id)));
    (tracked.try_into().unwrap(), held, world.jobs.untrack(client, &refs).await)
}

#[tokio::test(start_paused = true)]
async fn a_client_restricted_by_labels_cannot_change_labels() {
    let (world, [blue, red]) = labelled().await;
    let client = narrowed("mind", of_team("blue"));
    let changed = track_all(&world, &client, &red).await;
    // it keeps its earlier labels, and a client's own label grants nothing
    assert_eq!(changed, ([true, false, false], [Some(blue.clone()), None], 0));
    assert_eq!(world.jobs.labels(&key("mind", "export1")), Some(blue));
    assert!(sees(&world, &client, "mind", "export1").await);
}

#[tokio::test(start_paused = true)]
async fn track_and_untrack_change_only_jobs_of_the_granted_kinds() {
    let (world, [blue, red]) = labelled().await;
    world.jobs.track(&Principal::local(), &[reference("mind", "report1")], &blue).await.unwrap();
    let changed = track_all(&world, &narrowed("mind", of_kinds(&["EXPORT"])), &red).await;
    assert_eq!(changed, ([true, false, false], [Some(red), Some(blue.clone())], 1));
    assert_eq!(world.jobs.labels(&key("mind", "report1")), Some(blue));
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_tracks_and_untracks_nothing() {
    let (world, [blue, _]) = labelled().await;
    let all = Principal::local();
    world.jobs.untrack(&all, &[reference("mind", "export1")]).await;
    world.jobs.track(&all, &[reference("mind", "report1")], &blue).await.unwrap();
    let jobs = Some(BTreeSet::from([key("mind", "export1")]).into());
    let kind = CredentialKind::WatchToken;
    let token =
        Principal::local().with_credential(CredentialInfo { kind, jobs, ..CredentialInfo::default() });
    let changed = track_all(&world, &token, &labels(&[])).await;
    assert_eq!(changed, ([true, false, false], [None, Some(blue.clone())], 0));
    assert_eq!(world.jobs.labels(&key("mind", "report1")), Some(blue));
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
