//! Clock skew, and lists that differ from the reads by id.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use tokio::time::advance;

use super::*;
use crate::{MindBridgeStep, SimStep, SupermetricsStep};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A job `changes` of each upstream, which changes after 60 seconds, and a job `stays`.
fn jobs() -> SimulatorFixture {
    SimulatorFixture::new(scenario(
        vec![
            MindBridgeJob::new("changes", &[(0, "IN_PROGRESS"), (60, "COMPLETE")]),
            MindBridgeJob::new("stays", &[(0, "IN_PROGRESS")]),
        ],
        vec![
            SupermetricsJob::new("changes", &[(0, "RUNNING"), (60, "SUCCESS")]),
            SupermetricsJob::new("stays", &[(0, "RUNNING")]),
        ],
    ))
}

/// The words for the state before the change and after it.
const fn words(upstream: SimUpstream) -> (&'static str, &'static str) {
    match upstream {
        SimUpstream::MindBridge => ("IN_PROGRESS", "COMPLETE"),
        SimUpstream::Supermetrics => ("RUNNING", "SUCCESS"),
    }
}

#[tokio::test(start_paused = true)]
async fn skewed_clock_shifts_the_dates_of_bodies() {
    for (skew, created, listed) in
        [(90, "2026-01-01T00:01:30Z", 1), (-90, "2025-12-31T23:58:30Z", 1), (0, "2026-01-01T00:00:00Z", 1)]
    {
        let mut scenario = scenario(
            vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])],
            vec![SupermetricsJob::new("q", &[(0, "RUNNING")])],
        );
        scenario.mindbridge.clock_skew = SignedDuration::from_secs(skew);
        scenario.supermetrics.clock_skew = SignedDuration::from_secs(skew);
        let fixture = SimulatorFixture::new(scenario);
        let job = fixture.one("a").await;
        assert_eq!((job.at("/creationDate"), job.at("/lastModifiedDate")), (json!(created), json!(created)));
        let history = fixture.history(&json!({"ds_ids": "GAWA"})).await;
        assert_eq!(history.at("/data/0/schedule_time"), created);
        assert_eq!(
            (history.at("/meta/filter/until"), history.at("/meta/paginate/total")),
            (json!(created), json!(listed))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn date_header_shows_the_clock_of_the_upstream() {
    let mut scenario = scenario(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    scenario.mindbridge.clock_skew = SignedDuration::from_secs(-90);
    let fixture = SimulatorFixture::new(scenario);
    advance(s(100)).await;
    assert_eq!(fixture.one("a").await.header("date"), "Thu, 01 Jan 2026 00:00:10 GMT");
    assert_eq!(fixture.one("absent").await.header("date"), "Thu, 01 Jan 2026 00:00:10 GMT");
    assert_eq!(fixture.status("q", 0, 0).await.header("date"), "Thu, 01 Jan 2026 00:01:40 GMT");
}

#[tokio::test(start_paused = true)]
async fn clock_change_keeps_the_dates_of_the_past() {
    let fixture = jobs();
    advance(s(30)).await;
    fixture.handle.set_clock_skew(SimUpstream::MindBridge, SignedDuration::from_secs(-300));
    advance(s(30)).await;
    let job = fixture.one("changes").await;
    assert_eq!(job.at("/creationDate"), "2026-01-01T00:00:00Z");
    assert_eq!(job.at("/lastModifiedDate"), "2025-12-31T23:56:00Z");
    assert_eq!(job.header("date"), "Wed, 31 Dec 2025 23:56:00 GMT");
}

#[tokio::test(start_paused = true)]
async fn delayed_change_is_read_by_id_before_it_is_listed() {
    for upstream in SimUpstream::ALL {
        let fixture = jobs();
        let (before, after) = words(upstream);
        fixture.handle.set_list(upstream, SimList { delay: s(20), ..SimList::default() });
        // (seconds to let pass, state by id, state in the list)
        for (seconds, by_id, listed) in
            [(20, before, before), (40, after, before), (19, after, before), (1, after, after)]
        {
            advance(s(seconds)).await;
            assert_eq!(fixture.state_of(upstream, "changes").await, by_id);
            assert!(fixture.list(upstream).await.contains(&format!("changes {listed}")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delayed_change_keeps_its_own_date() {
    let fixture = jobs();
    fixture.handle.set_list(SimUpstream::MindBridge, SimList { delay: s(20), ..SimList::default() });
    let since = json!({"lastModifiedDate": {"$gte": "2026-01-01T00:01:00Z"}});
    advance(s(79)).await;
    assert!(ids(&fixture.query("", &since).await).is_empty());
    advance(s(1)).await;
    let late = fixture.query("", &since).await;
    assert_eq!(late.at("/content/0/lastModifiedDate"), "2026-01-01T00:01:00Z");
}

#[tokio::test(start_paused = true)]
async fn new_job_is_listed_after_the_delay() {
    for upstream in SimUpstream::ALL {
        let fixture = jobs();
        fixture.handle.set_list(upstream, SimList { delay: s(20), ..SimList::default() });
        advance(s(19)).await;
        assert!(fixture.list(upstream).await.is_empty());
        advance(s(1)).await;
        assert_eq!(fixture.list(upstream).await.len(), 2);
    }
}

/// Twenty jobs of each upstream, in lists that shift by two positions with each request.
fn shifting() -> SimulatorFixture {
    let jobs = (0..20).map(|n| MindBridgeJob::new(&format!("job{n:02}"), &[(0, "IN_PROGRESS")]));
    let queries = (0..20).map(|n| SupermetricsJob::new(&format!("job{n:02}"), &[(0, "RUNNING")]));
    let mut scenario = scenario(jobs.collect(), queries.collect());
    scenario.mindbridge.list.shift = 2;
    scenario.supermetrics.list.shift = 2;
    SimulatorFixture::new(scenario)
}

#[tokio::test(start_paused = true)]
async fn shifting_list_repeats_and_misses_items() {
    for upstream in SimUpstream::ALL {
        let pages = shifting().pages(upstream, 8).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(pages[0][6..], pages[1][..2], "the last two are repeated");
        let found: BTreeSet<String> = pages.concat().into_iter().collect();
        assert_eq!(found.len(), 16);
    }
}

#[tokio::test(start_paused = true)]
async fn shifting_list_misses_other_items_each_time() {
    for upstream in SimUpstream::ALL {
        let fixture = shifting();
        let mut found = BTreeSet::new();
        for _ in 0..2 {
            found.extend(fixture.pages(upstream, 8).await.concat());
        }
        assert_eq!(found.len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn batches_do_not_shift_the_list() {
    let fixture = shifting();
    let first = fixture.pages(SimUpstream::MindBridge, 100).await;
    for _ in 0..5 {
        fixture.query("", &json!({"id": {"$in": ["job00", "job01"]}})).await;
    }
    let second = fixture.pages(SimUpstream::MindBridge, 100).await;
    assert_eq!(first[0][..18], second[0][2..]);
}

#[tokio::test(start_paused = true)]
async fn refused_list_gets_the_error_of_the_upstream() {
    let fixture = jobs();
    for status in [400, 403, 404, 405] {
        for upstream in SimUpstream::ALL {
            fixture.handle.set_list(upstream, SimList { refuse: Some(status), ..SimList::default() });
        }
        let problem = fixture.query("", &json!({"status": "IN_PROGRESS"})).await;
        assert_eq!((problem.status, problem.at("/problems/0/severity")), (status, json!("ERROR")));
        let envelope = fixture.history(&json!({"ds_ids": "GAWA"})).await;
        assert_eq!((envelope.status, envelope.at("/error/code").is_string()), (status, true));
    }
}

#[tokio::test(start_paused = true)]
async fn refused_list_leaves_reads_by_id_available() {
    let fixture = jobs();
    for upstream in SimUpstream::ALL {
        fixture.handle.set_list(upstream, SimList { refuse: Some(403), ..SimList::default() });
        assert!(fixture.state_of(upstream, "stays").await.is_string());
    }
    assert_eq!(ids(&fixture.query("", &json!({"id": {"$in": ["stays"]}})).await), ["stays"]);
}

#[tokio::test(start_paused = true)]
async fn omitted_job_is_read_by_id_only() {
    let fixture = jobs();
    for upstream in SimUpstream::ALL {
        let omit = vec!["changes".to_owned()];
        fixture.handle.set_list(upstream, SimList { omit, ..SimList::default() });
        let (before, _) = words(upstream);
        assert_eq!(fixture.list(upstream).await, [format!("stays {before}")]);
        assert_eq!(fixture.state_of(upstream, "changes").await, before);
    }
    assert_eq!(ids(&fixture.query("", &json!({"id": {"$in": ["changes"]}})).await), ["changes"]);
}

#[tokio::test(start_paused = true)]
async fn frozen_job_is_listed_in_an_old_state_for_ever() {
    for upstream in SimUpstream::ALL {
        let fixture = jobs();
        let (before, after) = words(upstream);
        advance(s(30)).await;
        let freeze = vec!["changes".to_owned()];
        fixture.handle.set_list(upstream, SimList { freeze, ..SimList::default() });
        advance(s(3000)).await;
        assert_eq!(fixture.list(upstream).await, [format!("changes {before}"), format!("stays {before}")]);
        assert_eq!(fixture.state_of(upstream, "changes").await, after);
    }
}

#[tokio::test(start_paused = true)]
async fn job_frozen_after_its_change_shows_the_change() {
    for upstream in SimUpstream::ALL {
        let fixture = jobs();
        let (_, after) = words(upstream);
        advance(s(70)).await;
        let freeze = vec!["changes".to_owned()];
        fixture.handle.set_list(upstream, SimList { freeze, ..SimList::default() });
        let step: SimStep = match upstream {
            SimUpstream::MindBridge => MindBridgeStep::new("ERROR").into(),
            SimUpstream::Supermetrics => SupermetricsStep::new("STOPPED").into(),
        };
        advance(s(1)).await;
        fixture.handle.set_state("stays", step).unwrap();
        let listed = fixture.list(upstream).await;
        assert_eq!(listed[0], format!("changes {after}"));
        assert!(listed[1] == "stays ERROR" || listed[1] == "stays STOPPED", "only the given job is frozen");
    }
}

#[tokio::test(start_paused = true)]
async fn further_settings_keep_the_time_of_the_freeze() {
    let fixture = jobs();
    let upstream = SimUpstream::MindBridge;
    let freeze = vec!["changes".to_owned()];
    fixture.handle.set_list(upstream, SimList { freeze: freeze.clone(), ..SimList::default() });
    advance(s(70)).await;
    fixture.handle.set_list(upstream, SimList { freeze, shift: 1, ..SimList::default() });
    assert!(fixture.list(upstream).await.contains(&"changes IN_PROGRESS".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn default_settings_end_the_anomalies_of_a_list() {
    for upstream in SimUpstream::ALL {
        let fixture = jobs();
        let ids = vec!["changes".to_owned()];
        let list = SimList { refuse: Some(403), delay: s(9), shift: 1, omit: ids.clone(), freeze: ids };
        fixture.handle.set_list(upstream, list);
        advance(s(70)).await;
        fixture.handle.set_list(upstream, SimList::default());
        let (before, after) = words(upstream);
        assert_eq!(fixture.list(upstream).await, [format!("changes {after}"), format!("stays {before}")]);
    }
}
