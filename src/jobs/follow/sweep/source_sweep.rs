//! The sweeps of one source: what is known of them between two rounds, and what a list means for it. No waiting, no I/O.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::ending_jobs::EndingJobs;
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::domain::sweep::{DiscoveryRules, OVERLAP, SweepRecord, earlier, id_hash};
use crate::domain::upstream::Upstream;
use crate::jobs::follow::coverage::UnlistedChange;
use crate::ports::leases::FencingToken;
use crate::ports::listing::UnfinishedJob;

/// The ids of the lease. The first that no job of the upstream can have is used.
const LEASE_IDS: [&str; 2] = ["~sweep", "query"];

/// For how long a job that a list did not contain any more is remembered.
const DROPPED_FOR: Duration = Duration::from_mins(10);
/// So many jobs, or this part of those in the list, may be missing in a list and be in the next again.
const TOLERATED: usize = 3;
const TOLERATED_SHARE: usize = 20;

/// The sweeps of one source.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent of each other")]
pub(super) struct SourceSweep {
    pub(super) source: SourceName,
    pub(super) upstream: Upstream,
    /// The lease on the sweeps, in place of that of a job.
    pub(super) lease: JobKey,
    /// The token of the lease, while this process has it.
    pub(super) token: Option<FencingToken>,
    pub(super) record: SweepRecord,
    /// The calls of the last list.
    pub(super) calls: u32,
    /// Since when sweeps are in force: jobs that were read by id since then are covered.
    pub(super) since: Option<Instant>,
    /// When the last list was requested, whatever came of it.
    pub(super) requested: Option<Instant>,
    /// When the last complete list was requested, for waiting and as process time; by another replica, when it was
    /// completed.
    pub(super) swept: Option<(Instant, Timestamp)>,
    /// How often the window of the first list was halved, because the list was too long.
    pub(super) halvings: u32,
    /// No list is requested before this time, because the source refuses it or it is too long.
    pub(super) off_until: Option<Instant>,
    /// The source refused the last list. Reported once.
    pub(super) refused: bool,
    /// The changes that were found without a list, and are expected in one of the next.
    pub(super) unlisted: Vec<UnlistedChange>,
    /// The jobs of the last list with a version, with the version that was compared with the cached one.
    pub(super) compared: HashMap<ExternalId, i64>,
    /// The jobs of the last list, where lists contain the jobs that are not terminal.
    pub(super) unfinished: HashMap<ExternalId, Run>,
    /// The jobs that a list did not contain any more, and since when.
    dropped: HashMap<ExternalId, (Run, Instant)>,
    /// The discovered jobs: since the last count those that are stored.
    pub(super) discovered: HashSet<ExternalId>,
    /// When it was last counted how many of them are stored.
    pub(super) counted: Option<Instant>,
    /// A job was not discovered, because there were as many as configured. Reported once.
    pub(super) is_full: bool,
    /// Whether the record was read since the start of this process.
    pub(super) is_loaded: bool,
    /// The jobs of the source that all replicas verify by id.
    pub(super) verified: usize,
    /// Discovered jobs that are not followed and that a list does not contain any more: they are read until they are
    /// terminal.
    pub(super) ending: EndingJobs,
    /// Whether the stored jobs were compared with a list since no list was made for a time.
    pub(super) stored_compared: bool,
    /// How long after each other the last two lists of another replica were requested, by their number.
    pub(super) interval_elsewhere: Option<Duration>,
    /// When it was last decided what to do.
    pub(super) checked: Option<Instant>,
    /// When the next round is due. `None` while there is nothing to do.
    pub(super) next: Option<Instant>,
}

/// A run of a job in a list of the jobs that are not terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    state: JobState,
    /// When it was scheduled, in the words of the upstream.
    begun: Option<String>,
}

/// What a list of the jobs that are not terminal means.
#[derive(Debug, Default)]
pub(super) struct UnfinishedChanges {
    /// The jobs that were not in the last list, or were queued in it and are running now.
    pub(super) started: Vec<UnfinishedJob>,
    /// The jobs of the last list that are not in this one, in the order in which they were scheduled.
    pub(super) gone: Vec<ExternalId>,
    /// A job that shows that lists are incomplete.
    pub(super) missed: Option<ExternalId>,
}

impl SourceSweep {
    /// Sweeps that were not made yet. The first round is due now.
    pub(super) fn new(source: SourceName, upstream: Upstream) -> Option<Self> {
        let ids = LEASE_IDS.into_iter().filter_map(|id| ExternalId::parse(id).ok());
        let external_id = ids.into_iter().find(|id| (upstream.profile().check_id)(id).is_err())?;
        Some(Self {
            lease: JobKey { source: source.clone(), external_id },
            source,
            upstream,
            token: None,
            record: SweepRecord::default(),
            calls: 1,
            since: None,
            requested: None,
            swept: None,
            halvings: 0,
            off_until: None,
            refused: false,
            unlisted: Vec::new(),
            compared: HashMap::new(),
            unfinished: HashMap::new(),
            dropped: HashMap::new(),
            discovered: HashSet::new(),
            counted: None,
            is_full: false,
            is_loaded: false,
            verified: 0,
            ending: EndingJobs::default(),
            stored_compared: false,
            interval_elsewhere: None,
            checked: None,
            next: Some(Instant::now()),
        })
    }

    /// Forgets the lists of this process, since another one made later ones.
    pub(super) fn forget_lists(&mut self) {
        self.unlisted.clear();
        self.compared.clear();
        self.unfinished.clear();
        self.dropped.clear();
        self.ending.clear();
        self.stored_compared = false;
    }

    /// Applies the record of another replica, at this time of day, for waiting and as process time.
    pub(super) fn learn(&mut self, record: SweepRecord, time_of_day: Timestamp, now: (Instant, Timestamp)) {
        if record.rounds != self.record.rounds
            && let Some(swept_at) = record.swept_at
        {
            let span = |from: Timestamp, to: Timestamp| {
                Duration::try_from(to.duration_since(from)).unwrap_or_default()
            };
            let rounds = record.rounds.wrapping_sub(self.record.rounds);
            let before = self.record.swept_at.filter(|_| self.swept.is_some());
            self.interval_elsewhere = before
                .zip(u32::try_from(rounds).ok())
                .map(|(before, rounds)| span(before, swept_at) / rounds);
            let ago = span(swept_at, time_of_day);
            self.swept = Some((now.0.checked_sub(ago).unwrap_or(now.0), earlier(now.1, ago)));
        }
        self.record = record;
    }

    /// Makes the next round due, but not sooner after the last than `fastest`.
    pub(super) fn wake(&mut self, fastest: Duration) {
        let now = Instant::now();
        let at = self.checked.map_or(now, |checked| (checked + fastest).max(now));
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Selects the jobs of a list that were not compared with the cached ones before, and those that `differ` from what is
    /// followed.
    pub(super) fn not_compared(
        &mut self,
        listed: &[Observation],
        differs: impl Fn(&Observation) -> bool,
    ) -> Vec<Observation> {
        let version = |observation: &Observation| {
            Some((observation.job.key.external_id.clone(), observation.job.counter()?))
        };
        let now: HashMap<ExternalId, i64> = listed.iter().filter_map(version).collect();
        let before = std::mem::replace(&mut self.compared, now);
        let is_new = |observation: &&Observation| {
            let known = before.get(&observation.job.key.external_id).copied();
            known.is_none() || known != observation.job.counter() || differs(observation)
        };
        listed.iter().filter(is_new).cloned().collect()
    }

    /// Compares a list of the jobs that are not terminal, requested at this time, with the list before. `found` are the
    /// changes of covered jobs that were found without a list.
    pub(super) fn compare_unfinished(
        &mut self,
        listed: &[UnfinishedJob],
        requested: Instant,
        found: Vec<UnlistedChange>,
    ) -> UnfinishedChanges {
        let run = |job: &UnfinishedJob| (job.id.clone(), Run { state: job.state, begun: job.begun.clone() });
        let now: HashMap<ExternalId, Run> = listed.iter().map(run).collect();
        let before = std::mem::replace(&mut self.unfinished, now);
        let is_started = |job: &&UnfinishedJob| {
            let known = before.get(&job.id).map(|known| known.state);
            known.is_none() || job.state == JobState::Running && known != Some(JobState::Running)
        };
        let started = listed.iter().filter(is_started).cloned().collect();
        let missed =
            self.missing_in_between(requested).or_else(|| self.still_listed(&before, requested, found));
        let mut gone: Vec<_> =
            before.into_iter().filter(|(id, _)| !self.unfinished.contains_key(id)).collect();
        // Which of them ended first is not known: most likely the one that was scheduled first.
        gone.sort_unstable_by(|(id, run), (other, of_other)| (&run.begun, id).cmp(&(&of_other.begun, other)));
        let ids = gone.iter().map(|(id, _)| id.clone()).collect();
        self.dropped.extend(gone.into_iter().map(|(id, run)| (id, (run, requested))));
        UnfinishedChanges { started, gone: ids, missed }
    }

    /// One of the jobs that are in the list again after an earlier list did not contain them, if there are too many of
    /// them for jobs that moved from one page to another.
    fn missing_in_between(&mut self, requested: Instant) -> Option<ExternalId> {
        let recently = |since: Instant| since + DROPPED_FOR > requested;
        let unfinished = &self.unfinished;
        let mut again = Vec::new();
        self.dropped.retain(|id, (run, since)| {
            let listed = unfinished.get(id);
            if listed.is_some_and(|listed| listed.begun == run.begun) {
                again.push(id.clone());
            }
            listed.is_none() && recently(*since)
        });
        let tolerated = TOLERATED.max(self.unfinished.len() / TOLERATED_SHARE);
        if again.len() > tolerated { again.pop() } else { None }
    }

    /// A job that is terminal, and that lists contain for long after that was found.
    fn still_listed(
        &mut self,
        before: &HashMap<ExternalId, Run>,
        requested: Instant,
        found: Vec<UnlistedChange>,
    ) -> Option<ExternalId> {
        self.unlisted.extend(found);
        let unfinished = &self.unfinished;
        self.unlisted.retain(|change| {
            let id = &change.observation.job.key.external_id;
            let run = |runs: &HashMap<ExternalId, Run>| runs.get(id).map(|run| run.begun.clone());
            // Another run of the same job is not terminal.
            let same_run = run(before).is_none_or(|begun| run(unfinished) == Some(begun));
            change.observation.job.is_terminal() && unfinished.contains_key(id) && same_run
        });
        let late = self.unlisted.iter().position(|change| change.found + OVERLAP <= requested)?;
        Some(self.unlisted.swap_remove(late).observation.job.key.external_id.clone())
    }

    /// Counts a job that no client requested; `false` if there are enough of them.
    pub(super) fn discover(&mut self, id: &ExternalId, rules: Option<DiscoveryRules>) -> bool {
        let Some(rules) = rules else { return false };
        let fits = self.discovered.contains(id) || self.discovered.len() < rules.max_jobs;
        if fits {
            self.discovered.insert(id.clone());
        } else if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                source = %self.source, max_jobs = rules.max_jobs,
                "discovery limit of a source reached; no more jobs are discovered"
            );
        }
        fits
    }

    /// Applies how many of the discovered jobs are stored. If there is room again, the jobs that were not discovered are
    /// listed as if they were new.
    pub(super) fn count_discovered(&mut self, stored: HashSet<ExternalId>, rules: DiscoveryRules) {
        self.discovered = stored;
        if self.discovered.len() < rules.max_jobs && std::mem::take(&mut self.is_full) {
            self.compared.clear();
            let discovered = &self.discovered;
            self.unfinished.retain(|id, _| discovered.contains(id));
            tracing::info!(source = %self.source, jobs = self.discovered.len(), "jobs of a source discovered again");
        }
    }

    /// The jobs of the last list, by the hash of their ids.
    pub(super) fn unfinished_hashes(&self) -> HashSet<u64> {
        self.unfinished.keys().map(id_hash).collect()
    }

    /// Compares the changes that were found without a list with a complete list that was requested at this time. Returns
    /// one that should have been in a list.
    pub(super) fn missed_by(
        &mut self,
        listed: &[Observation],
        requested: Instant,
        found: Vec<UnlistedChange>,
    ) -> Option<UnlistedChange> {
        self.unlisted.extend(found);
        if self.unlisted.is_empty() {
            return None;
        }
        let by_id: HashMap<String, &Observation> = listed.iter().map(|one| (spelling(one), one)).collect();
        self.unlisted.retain(|change| {
            let same = by_id.get(&spelling(&change.observation));
            same.is_none_or(|listed| listed.contradicts(&change.observation))
        });
        let late = self.unlisted.iter().position(|change| change.found + OVERLAP <= requested)?;
        Some(self.unlisted.swap_remove(late))
    }
}

/// The id of a job in one spelling: a list has the upstream's, and a client may have requested another.
fn spelling(observation: &Observation) -> String {
    observation.job.key.external_id.as_str().to_ascii_lowercase()
}

/// Returns whether a listed job differs from the cached one, and is not older.
pub(super) fn is_change(held: &Observation, listed: &Observation) -> bool {
    match (held.job.counter(), listed.job.counter()) {
        (Some(held), Some(listed)) => listed > held,
        (_, _) => listed.supersedes(held) && !held.job.same_report(&listed.job),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> SourceSweep {
        SourceSweep::new(SourceName::parse("s").unwrap(), Upstream::Supermetrics).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn interval_of_another_replica_is_measured_by_its_records() {
        let mut sweep = sweep();
        let now = Instant::now();
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let record =
            |rounds, second| SweepRecord { rounds, swept_at: Some(at(second)), ..SweepRecord::default() };
        sweep.learn(record(3, 0), at(5), (now, at(5)));
        assert_eq!(sweep.interval_elsewhere, None, "of one list");
        assert_eq!(sweep.swept.unwrap().1, at(0), "when it was requested");
        sweep.learn(record(5, 60), at(61), (now, at(61)));
        assert_eq!(sweep.interval_elsewhere, Some(Duration::from_secs(30)));
        sweep.learn(record(5, 60), at(90), (now, at(90)));
        assert_eq!(sweep.swept.unwrap().1, at(60), "no other list");
    }
}
