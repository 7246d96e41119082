//! Three replicas under load, and one of them killed, repeatedly.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::{join, join_all};
use jobgate_simulator::{FaultKind, SimFault, SimUpstream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::server::{ANY, describe, external};
use super::{EventLog, LIMIT, Outcome, Replica, Site, ended, execute, lookup, until, watched};

/// The duration of a lease.
const LEASE: Duration = Duration::from_secs(3);
/// Clients that send requests all the time, and their pause.
const CLIENTS: usize = 6;
const PAUSE: Duration = Duration::from_millis(300);
/// The duration of a fetch, so that many are in progress at the kill.
const SLOW: Duration = Duration::from_millis(200);
/// Jobs tracked at the replica that is killed next.
const TRACKED: usize = 4;
/// The latest results that are read again after each kill; all of them are read after the last.
const LATELY: usize = 100;

/// What the clients and the killing task share.
struct Stage {
    site: Site,
    event_log: EventLog,
    alive: Mutex<Vec<SocketAddr>>,
    bad: Mutex<Vec<String>>,
}

impl Stage {
    fn record_event(&self, id: &str, words: &str) {
        self.site.forget(id);
        self.bad.lock().unwrap().extend(self.event_log.note(id, words));
    }

    /// One client: a new job each time, alternately by each handler.
    async fn client(&self, number: usize) {
        for round in 0_usize.. {
            tokio::time::sleep(PAUSE).await;
            let replica = fastrand::choice(self.alive.lock().unwrap().iter()).copied();
            let Some(replica) = replica else { continue };
            let id = format!("c{number}r{round}");
            self.site.runs(&id);
            let end = async {
                if round % 3 > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                self.site.ends(&id);
            };
            let received = match round % 3 {
                0 => {
                    end.await;
                    lookup(replica, &[&id], None).await.and_then(|mut now| now.pop()).map(|now| now.words)
                }
                1 => {
                    let query =
                        format!("query($ref: JobRef!) {{ jobAwait(ref: $ref, timeout: \"20s\") {ANY} }}");
                    let request = execute(replica, &query, json!({ "ref": external("mind", &id) }));
                    join(end, request).await.1.map(|data| describe(&data["jobAwait"]))
                }
                _ => join(end, watched(replica, &id)).await.1,
            };
            // A client without a complete answer is promised nothing.
            match received {
                Some(words) if words == ended(&id) => self.record_event(&id, &words),
                Some(words) if words.starts_with("RUNNING") => {}
                Some(words) => self
                    .bad
                    .lock()
                    .unwrap()
                    .push(format!("{id} runs or has failed, and a client received {words:?}")),
                None => {}
            }
        }
    }
}

/// Kills a random one of three replicas `times` times.
pub(crate) async fn run(times: usize, progress: impl Fn(usize, &[String]) + Send + Sync) -> Outcome {
    let site = Site::new(&[], LEASE).await;
    site.upstreams
        .push_fault(SimFault::always(SimUpstream::MindBridge, FaultKind::SlowHeaders { delay: SLOW }));
    let mut replicas = vec![site.replica().await, site.replica().await, site.replica().await];
    let alive = Mutex::new(replicas.iter().map(|one| one.address).collect());
    let stage = Stage { site, event_log: EventLog::default(), alive, bad: Mutex::default() };
    let (mut gaps, mut checked) = (Vec::new(), 0);
    let killing = async {
        for kill in 0..times {
            run_iteration(&stage, &mut replicas, kill, &mut gaps).await;
            let lately = stage.event_log.all();
            let lately = fastrand::choose_multiple(lately, LATELY);
            for replica in &replicas {
                let bad = stage.site.check(replica.address, &lately).await;
                stage.bad.lock().unwrap().extend(bad);
            }
            checked += lately.len() * replicas.len();
            progress(kill + 1, &stage.bad.lock().unwrap());
        }
    };
    tokio::select! {
        () = killing => {}
        _ = join_all((0..CLIENTS).map(|number| stage.client(number))) => {}
    }
    let all = stage.event_log.all();
    let mut bad = std::mem::take(&mut *stage.bad.lock().unwrap());
    for replica in &replicas {
        bad.extend(stage.site.check(replica.address, &all).await);
    }
    checked += all.len() * replicas.len();
    gaps.sort_unstable();
    let longest = gaps.last().copied().unwrap_or_default();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    let beyond = gaps.iter().filter(|gap| **gap > LEASE).count();
    let notes = vec![
        format!("{} terminal states delivered by query, jobAwait, subscription and list", all.len()),
        format!("{} of {} tracked jobs followed again by another replica", gaps.len(), times * TRACKED),
        format!(
            "from the kill to the next poll: median {median:.1?}, longest {longest:.1?}, {beyond} beyond the lease of {LEASE:?}"
        ),
    ];
    stage.site.stop().await;
    Outcome { tries: times, checked, bad, notes }
}

/// One kill, of a replica that has just tracked jobs. The others must poll them, and report their terminal states.
async fn run_iteration(stage: &Stage, replicas: &mut Vec<Replica>, kill: usize, gaps: &mut Vec<Duration>) {
    let site = &stage.site;
    let victim = replicas.swap_remove(fastrand::usize(..replicas.len()));
    let ids: Vec<String> = (0..TRACKED).map(|number| format!("t{kill}n{number}")).collect();
    for id in &ids {
        site.runs(id);
    }
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    let (name, labels) = ("kill", format!("{kill}"));
    let track = "mutation($refs: [JobRef!]!, $labels: [LabelInput!]!) { trackJobs(input: { refs: $refs, labels: $labels }) { __typename } }";
    let variables = json!({ "refs": refs, "labels": [{ "name": name, "value": labels }] });
    execute(victim.address, track, variables).await.unwrap();
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
    stage.alive.lock().unwrap().retain(|address| *address != victim.address);
    site.upstreams.clear_record();
    victim.process.signal("KILL").await;
    victim.process.ended().await;
    let died = Instant::now();
    let mut waiting = ids.clone();
    let followed = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !waiting.is_empty() {
            ticks.tick().await;
            for request in site.upstreams.record() {
                if request.started > died {
                    let before = waiting.len();
                    waiting.retain(|id| !request.ids.contains(id));
                    gaps.extend((waiting.len()..before).map(|_| request.started - died));
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, followed).await.ok();
    for id in waiting {
        stage.bad.lock().unwrap().push(format!("{id} is tracked, and no replica polls it"));
    }
    for id in &ids {
        site.ends(id);
    }
    for replica in &*replicas {
        let list = "query($labels: [LabelInput!]!) { jobList(first: 10, filter: { labels: $labels }) { nodes { externalId state failure { message } } } }";
        let all_ended = until(|| async {
            let variables = json!({ "labels": [{ "name": name, "value": labels }] });
            let Some(data) = execute(replica.address, list, variables).await else { return false };
            let nodes = data["jobList"]["nodes"].as_array().unwrap();
            nodes.len() == TRACKED && nodes.iter().all(|node| node["state"] == "FAILED")
        });
        if !all_ended.await {
            stage
                .bad
                .lock()
                .unwrap()
                .push(format!("{ids:?} are tracked, and not all are complete at {}", replica.address));
        }
    }
    for id in &ids {
        stage.record_event(id, &ended(id));
    }
    let untrack = "mutation($refs: [JobRef!]!) { untrackJobs(input: { refs: $refs }) { __typename } }";
    execute(replicas[0].address, untrack, json!({ "refs": refs })).await.unwrap();
    let next = site.replica().await;
    stage.alive.lock().unwrap().push(next.address);
    replicas.push(next);
}
