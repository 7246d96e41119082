//! One round of the sweeps of a source: whether a list is due, who requests it, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::source_sweep::SourceSweep;
use super::statuses::{SweepStatus, SweepStatuses};
use crate::domain::id::JobKey;
use crate::domain::sweep::{
    DiscoveryRules, FIRST_WINDOW, HourlyCalls, SweepDemand, SweepRecord, detail_interval, earlier,
    sweep_interval, verify_interval,
};
use crate::jobs::cache::JobCache;
use crate::jobs::fetch::Ingest;
use crate::jobs::follow::coverage::SweepCoverage;
use crate::jobs::follow::registry::FollowRegistry;
use crate::ports::clock::Clock;
use crate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};
use crate::ports::ledger::Ledger;
use crate::ports::listing::{JobListing, ListError, ListSupport, Listed};
use crate::ports::upstream::{FetchError, JobReader};
use crate::telemetry::meters::{self, SweepOutcome};
use crate::telemetry::trace;

/// So many followed jobs are polled where each needs a call of its own.
const FEW: usize = 5;
/// For how long no list is requested after one that was too long.
const TOO_LONG_FOR: Duration = Duration::from_mins(1);
/// How often it is checked whether distrusted sweeps may be made again.
const DISTRUST_CHECK: Duration = Duration::from_mins(1);

/// Makes the rounds.
#[derive(Debug)]
pub(super) struct Rounds {
    pub(super) following: Arc<FollowRegistry>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) cache: Arc<JobCache>,
    pub(super) leases: Arc<dyn LeaseManager>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) statuses: Arc<SweepStatuses>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The intervals of one round.
#[derive(Clone, Copy)]
struct Intervals {
    sweep: Duration,
    verify: Duration,
    /// Where lists contain the jobs that are not terminal.
    detail: Option<Duration>,
}

/// Up to how many followed jobs cost no more to poll than to sweep.
pub(super) const fn polled(support: ListSupport, ids_a_request: usize) -> usize {
    match support {
        ListSupport::Changes => ids_a_request,
        ListSupport::Unfinished => FEW,
    }
}

impl Rounds {
    /// Makes one round, and sets when the next one is due.
    pub(super) async fn run(
        &self,
        mut sweep: SourceSweep,
        reader: Arc<dyn JobReader>,
        stop: CancellationToken,
    ) -> SourceSweep {
        let now = Instant::now();
        sweep.checked = Some(now);
        if !sweep.is_loaded
            && let Some(read) = self.cache.or_miss(self.ledger.sweep(&sweep.lease).await)
        {
            (sweep.record, sweep.is_loaded) = (read.unwrap_or_default(), true);
        }
        let batch = reader.upstream().profile().ids_a_request;
        let demand = self.following.sweep_demand(&sweep.source, batch);
        let discovers = reader.discovery().is_some();
        if reader.list_support().is_none_or(|support| !discovers && demand.jobs <= polled(support, batch)) {
            self.end(&mut sweep).await;
            return sweep;
        }
        if let Some(until) = sweep.off_until.filter(|until| *until > now) {
            sweep.next = Some(until);
            return sweep;
        }
        sweep.off_until = None;
        // Each replica needs calls of its own, however few jobs are in the last of them.
        let own = demand.verified.next_multiple_of(batch.max(1));
        let verified = self.ledger.share_verified(&sweep.source, own as u64).await;
        sweep.verified = usize::try_from(verified).unwrap_or(usize::MAX);
        match self.claim(&sweep.lease).await {
            Some(token) => {
                self.own(&mut sweep, &*reader, demand, token, &stop).await;
                self.read_ending(&mut sweep).await;
            }
            None => self.follow(&mut sweep, &*reader, demand).await,
        }
        sweep
    }

    /// Ends the sweeps of a source: polls take over.
    pub(super) async fn end(&self, sweep: &mut SourceSweep) {
        self.halt(sweep).await;
        sweep.ending.clear();
        self.following.forget_reads(&sweep.source);
        sweep.next = None;
    }

    /// Ends the sweeps of a source for a time. Discovered jobs are still verified.
    async fn halt(&self, sweep: &mut SourceSweep) {
        self.suspend(sweep);
        let trusted = sweep.record.is_trusted(self.clock.time_of_day());
        let (discovered, is_full) = (sweep.discovered.len(), sweep.is_full);
        self.statuses.set(&sweep.source, SweepStatus { trusted, discovered, is_full, ..SweepStatus::UNUSED });
        self.release(sweep).await;
    }

    /// Ends the sweeps of a source that is not configured any more.
    pub(super) async fn remove(&self, sweep: &mut SourceSweep) {
        self.end(sweep).await;
        self.statuses.forget(&sweep.source);
    }

    /// Releases the lease, so that another replica can sweep.
    pub(super) async fn release(&self, sweep: &mut SourceSweep) {
        if let Some(token) = sweep.token.take() {
            self.leases.release(&sweep.lease, token).await;
        }
    }

    async fn claim(&self, lease: &JobKey) -> Option<FencingToken> {
        let claims = self.leases.claim(std::slice::from_ref(lease), SkipIf::Never).await;
        match claims.into_iter().next() {
            Some(Claim::Acquired(token)) => Some(token),
            Some(Claim::HeldElsewhere { .. } | Claim::Unneeded) | None => None,
        }
    }

    /// The round of the process that sweeps this source.
    async fn own(
        &self,
        sweep: &mut SourceSweep,
        reader: &dyn JobReader,
        demand: SweepDemand,
        token: FencingToken,
        stop: &CancellationToken,
    ) {
        let (now, time_of_day) = (Instant::now(), self.clock.time_of_day());
        if sweep.token.replace(token).is_none() {
            self.take_over(sweep).await;
        }
        if !sweep.record.is_trusted(time_of_day) {
            self.suspend(sweep);
            self.release(sweep).await;
            self.report(sweep, self.intervals(sweep, reader, demand));
            sweep.next = Some(now + DISTRUST_CHECK);
            return;
        }
        let intervals = self.intervals(sweep, reader, demand);
        // Another process may have made the last sweep.
        let elsewhere = sweep.record.swept_at.filter(|_| sweep.requested.is_none());
        let ago = elsewhere.and_then(|at| Duration::try_from(time_of_day.duration_since(at)).ok());
        let due = match (sweep.requested, ago) {
            (Some(requested), _) => requested + intervals.sweep,
            (None, Some(ago)) => now + intervals.sweep.saturating_sub(ago),
            (None, None) => now,
        };
        if due > now {
            self.renew_coverage(sweep, intervals);
            sweep.next = Some(self.before_expiry(due));
            return;
        }
        self.sweep(sweep, reader, demand, token, stop).await;
    }

    /// Reads what the process before recorded.
    async fn take_over(&self, sweep: &mut SourceSweep) {
        let read = self.cache.or_miss(self.ledger.sweep(&sweep.lease).await);
        if let Some(record) = read.flatten() {
            sweep.record = record;
        }
        sweep.requested = None;
        sweep.forget_lists();
        // Changes that were found before are compared with no list of this process.
        drop(self.following.take_unlisted(&sweep.source));
    }

    /// Requests a list and applies it.
    async fn sweep(
        &self,
        sweep: &mut SourceSweep,
        reader: &dyn JobReader,
        demand: SweepDemand,
        token: FencingToken,
        stop: &CancellationToken,
    ) {
        let (began, began_at) = (Instant::now(), self.clock.now());
        let discovery = reader.discovery();
        let from = sweep.record.since(discovery);
        let window = discovery.map_or(FIRST_WINDOW, |rules| rules.since.max(FIRST_WINDOW));
        let window = window / 1_u32.checked_shl(sweep.halvings).unwrap_or(u32::MAX);
        let since = from.unwrap_or_else(|| earlier(self.clock.time_of_day(), window));
        sweep.requested = Some(began);
        let span = trace::sweep(sweep.source.as_str());
        let listing = trace::with_last_call(self.list(reader, since, &sweep.lease, token, stop));
        let (listing, caller) = listing.instrument(span).await;
        let Some(listing) = listing else {
            if !stop.is_cancelled() {
                self.end(sweep).await;
            }
            return;
        };
        let interval = self.intervals(sweep, reader, demand).sweep;
        match listing.outcome {
            Ok(listed) => {
                sweep.calls = listing.calls;
                (sweep.swept, sweep.refused, sweep.halvings) = (Some((began, began_at)), false, 0);
                let upstream_now = listing.upstream_time;
                let complete = CompleteList { listed, since, began, upstream_now, discovery, token };
                let applied = self.apply(sweep, complete, &caller).await;
                let intervals = self.intervals(sweep, reader, demand);
                match applied {
                    AppliedList::Trusted => {
                        sweep.since.get_or_insert(began);
                        self.renew_coverage(sweep, intervals);
                        sweep.next = Some(self.before_expiry(began + intervals.sweep));
                    }
                    AppliedList::Contradicted => {
                        self.suspend(sweep);
                        self.release(sweep).await;
                        self.report(sweep, intervals);
                        sweep.next = Some(Instant::now() + DISTRUST_CHECK);
                    }
                    // The next round reads what the process that has the lease now recorded.
                    AppliedList::LeaseLost => {
                        self.lose_lease(sweep);
                        sweep.next = Some(Instant::now() + self.following.settings().pace.fastest);
                    }
                }
            }
            Err(ListError::Refused(status)) => {
                meters::sweep(&sweep.source, SweepOutcome::Refused);
                if !std::mem::replace(&mut sweep.refused, true) {
                    tracing::warn!(
                        source = %sweep.source, status,
                        "source rejected the list of jobs; jobs are polled"
                    );
                }
                // Permissions change without a word: it is tried again as often as jobs are verified.
                self.turn_off(sweep, self.following.settings().verify_interval).await;
            }
            Err(ListError::TooLong) => {
                meters::sweep(&sweep.source, SweepOutcome::TooLong);
                // After a long time without sweeps, what changed in the meantime is known from polls.
                match from {
                    Some(_) if sweep.since.is_none() => sweep.record.watermark = None,
                    Some(_) => {}
                    None => sweep.halvings = sweep.halvings.saturating_add(1),
                }
                tracing::debug!(source = %sweep.source, "list of jobs is too long; jobs are polled");
                self.turn_off(sweep, TOO_LONG_FOR).await;
            }
            Err(ListError::Fetch(error)) => {
                meters::sweep(&sweep.source, SweepOutcome::Failed);
                self.fail(sweep, &error, interval);
            }
        }
    }

    /// Applies a failed list. If lists fail for longer than the longest interval, polls take over: they show the outage.
    fn fail(&self, sweep: &mut SourceSweep, error: &FetchError, interval: Duration) {
        let now = Instant::now();
        let slowest = self.following.settings().pace.slowest;
        if sweep.swept.is_none_or(|(swept, _)| swept + slowest <= now) {
            self.suspend(sweep);
        }
        let pause = match error {
            FetchError::Throttled { retry_after } => (*retry_after).min(slowest),
            FetchError::NotFound
            | FetchError::CredentialRejected
            | FetchError::Unconfigured
            | FetchError::Unavailable(_)
            | FetchError::TimedOut
            | FetchError::BadAnswer(_)
            | FetchError::ConflictingVersion => slowest / 4,
        };
        sweep.next = Some(self.before_expiry(now + interval.max(pause)));
    }

    async fn turn_off(&self, sweep: &mut SourceSweep, pause: Duration) {
        let until = Instant::now() + pause;
        self.halt(sweep).await;
        (sweep.off_until, sweep.next) = (Some(until), Some(until));
    }

    /// Requests a list, and renews the lease until it is complete.
    async fn list(
        &self,
        reader: &dyn JobReader,
        since: Timestamp,
        lease: &JobKey,
        token: FencingToken,
        stop: &CancellationToken,
    ) -> Option<JobListing> {
        let held = [(lease.clone(), token)];
        let mut list = reader.list(since);
        loop {
            tokio::select! {
                listing = &mut list => return listing,
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(self.leases.renew_every()) => self.leases.renew(&held).await,
            }
        }
    }

    /// The round of a process beside the one that sweeps: whether sweeps are in force is in the shared record.
    async fn follow(&self, sweep: &mut SourceSweep, reader: &dyn JobReader, demand: SweepDemand) {
        let now = Instant::now();
        self.lose_lease(sweep);
        drop(self.following.take_unlisted(&sweep.source));
        let read = self.cache.or_miss(self.ledger.sweep(&sweep.lease).await).flatten();
        if let Some(record) = read {
            sweep.learn(record, self.clock.time_of_day(), (now, self.clock.now()));
        }
        let own = self.intervals(sweep, reader, demand);
        let slowest = self.following.settings().pace.slowest;
        // The other replica does not know what the watchers of this one require: what it provides is what counts.
        let elsewhere = sweep.interval_elsewhere.unwrap_or(slowest);
        let intervals = Intervals { sweep: own.sweep.max(elsewhere), ..own };
        let recent = sweep.swept.is_some_and(|(swept, _)| now < swept + slowest * 2);
        if recent && sweep.record.is_trusted(self.clock.time_of_day()) {
            sweep.since.get_or_insert(now);
            self.renew_coverage(sweep, intervals);
        } else {
            self.suspend(sweep);
            self.report(sweep, intervals);
        }
        sweep.next = Some(self.before_expiry(now + own.sweep));
    }

    /// Applies that another process has the lease: it reads the discovered jobs.
    fn lose_lease(&self, sweep: &mut SourceSweep) {
        sweep.token = None;
        sweep.ending.clear();
        self.following.forget_reads(&sweep.source);
    }

    /// Ends the coverage, and keeps what is known. Until lists are made again, jobs can end that no list will contain.
    fn suspend(&self, sweep: &mut SourceSweep) {
        sweep.stored_compared = false;
        if sweep.since.take().is_some() {
            self.following.set_coverage(&sweep.source, None, None);
        }
    }

    fn renew_coverage(&self, sweep: &SourceSweep, intervals: Intervals) {
        if let Some((since, swept)) = sweep.since.zip(sweep.swept) {
            let Intervals { sweep: interval, verify: verify_interval, detail: detail_interval } = intervals;
            let coverage = SweepCoverage { since, interval, verify_interval, swept, detail_interval };
            let listed = detail_interval.map(|_| sweep.record.unfinished.iter().copied().collect());
            self.following.set_coverage(&sweep.source, Some(coverage), listed.as_ref());
        }
        self.report(sweep, intervals);
    }

    fn report(&self, sweep: &SourceSweep, intervals: Intervals) {
        let SweepRecord { watermark, swept_at, .. } = sweep.record;
        let trusted = sweep.record.is_trusted(self.clock.time_of_day());
        let (in_force, verify_interval) = (sweep.since.is_some(), intervals.verify);
        let (discovered, is_full) = (sweep.discovered.len(), sweep.is_full);
        let status =
            SweepStatus { swept_at, watermark, trusted, in_force, discovered, is_full, verify_interval };
        self.statuses.set(&sweep.source, status);
    }

    fn intervals(&self, sweep: &SourceSweep, reader: &dyn JobReader, demand: SweepDemand) -> Intervals {
        let settings = self.following.settings();
        let budget = reader.status().budget;
        let hourly = HourlyCalls { per_hour: budget.per_hour, left: budget.left_this_hour };
        let batch = reader.upstream().profile().ids_a_request;
        let verified = sweep.verified.max(demand.verified);
        let detail = reader.list_support().filter(|support| *support == ListSupport::Unfinished);
        Intervals {
            sweep: sweep_interval(settings.pace, demand, sweep.calls, hourly),
            verify: verify_interval(settings.verify_interval, verified, batch, budget.per_hour),
            detail: detail.map(|_| detail_interval(settings.pace, demand.watched, batch, budget.per_hour)),
        }
    }

    /// A time, or the earlier one at which the lease is to be renewed.
    fn before_expiry(&self, at: Instant) -> Instant {
        let renew = Instant::now().checked_add(self.leases.renew_every());
        renew.map_or(at, |renew| renew.min(at))
    }
}

/// A complete list.
pub(super) struct CompleteList {
    pub(super) listed: Listed,
    /// From when on it was requested.
    pub(super) since: Timestamp,
    /// When it was requested.
    pub(super) began: Instant,
    /// The upstream's time of day.
    pub(super) upstream_now: Option<Timestamp>,
    /// Which jobs are discovered.
    pub(super) discovery: Option<DiscoveryRules>,
    /// The token of the lease under which it was requested.
    pub(super) token: FencingToken,
}

/// What came of a complete list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppliedList {
    /// It contains what is known otherwise.
    Trusted,
    /// It lacks a change that was found otherwise.
    Contradicted,
    /// Another process has the lease on the sweeps now.
    LeaseLost,
}
