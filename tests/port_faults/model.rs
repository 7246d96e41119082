//! A model of the upstream at each time, a source that reports it within its budget, and the answers that clients
//! received.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use jobgate::domain::error::ProblemCode;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Job, Life};
use jobgate::domain::source::{CredentialStatus, SourceStatus};
use jobgate::domain::state::JobState;
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::answer::LookupResult;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::outbound::upstreams::limiter::{CallOutcome, LimiterRefusal, LimiterSettings, UpstreamLimiter};
use jobgate::ports::BoxFuture;
use jobgate::ports::credentials::{Credential, Credentials};
use jobgate::ports::entropy::Entropy;
use jobgate::ports::feed::{ChangeNotification, FeedEvent, NotificationFeed, RemoteChange};
use jobgate::ports::upstream::{
    Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};
use secrecy::SecretString;
use tokio::time::Instant;

use crate::support::ports::{IN_FORCE, failed, job, reference};

/// The limits of a source: calls in any second, and concurrent calls.
pub(super) const PER_SECOND: usize = 2;
const CONCURRENCY: u32 = 3;

/// The whole history of a job upstream.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) source: &'static str,
    pub(super) id: String,
    upstream: Upstream,
    runs: Vec<Run>,
    /// From when on the upstream does not know it.
    gone: Option<Duration>,
}

/// From its start to its terminal state.
#[derive(Clone, Debug)]
struct Run {
    queued: Duration,
    running: Duration,
    ends: Duration,
    end: Life,
}

impl Run {
    fn draw(rng: &mut Rng, from: u64, longest: u64) -> Self {
        let mut at = |least: u64, most: u64| rng.u64(least..least + most);
        let running = from + at(0, 20);
        let ends = running + 1 + at(0, longest);
        let end = match at(0, 3) {
            0 => Life::Succeeded,
            1 => failed(),
            _ => Life::Canceled,
        };
        let s = Duration::from_secs;
        Self { queued: s(from), running: s(running), ends: s(ends), end }
    }
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, number: usize) -> Self {
        let metrics = number % 2 == 1;
        let first = Run::draw(rng, 0, 120);
        let ended = first.ends.as_secs();
        let again = metrics && rng.bool();
        let mut runs = vec![first];
        if again {
            let from = ended + rng.u64(20..60);
            runs.push(Run::draw(rng, from, 60));
        }
        let gone = (!again && rng.u8(..3) == 0).then(|| Duration::from_secs(ended + rng.u64(10..120)));
        let (source, upstream) =
            if metrics { ("metrics", Upstream::Supermetrics) } else { ("mind", Upstream::MindBridge) };
        Self { source, id: format!("j{number}"), upstream, runs, gone }
    }

    pub(super) fn reference(&self) -> RequestedRef {
        reference(self.source, &self.id)
    }

    pub(super) fn key(&self) -> JobKey {
        job(self.source, &self.id, self.upstream, Life::Queued).key
    }

    /// Whether the upstream still knows the job.
    pub(super) fn is_there(&self, now: Duration) -> bool {
        self.gone.is_none_or(|gone| now < gone)
    }

    /// The upstream's answer at a time.
    pub(super) fn at(&self, now: Duration) -> Result<Job, FetchError> {
        let run = self.runs.iter().rposition(|run| run.queued <= now).unwrap_or(0);
        let Run { running, ends, end, .. } = &self.runs[run];
        if !self.is_there(now) {
            return Err(FetchError::NotFound);
        }
        let life = match now {
            now if now < *running => Life::Queued,
            now if now < *ends => Life::Running,
            _ => end.clone(),
        };
        let mut job = job(self.source, &self.id, self.upstream, life);
        job.native_state = Some(run.to_string());
        Ok(job)
    }

    /// The possible terminal states of a run; a run whose terminal state was not observed is lost with the job.
    fn may_end(&self, run: usize, state: JobState) -> bool {
        let end = self.runs.get(run).map(|run| match run.end {
            Life::Succeeded => JobState::Succeeded,
            Life::Failed(_) => JobState::Failed,
            Life::Canceled | Life::Queued | Life::Running | Life::Expired | Life::Unknown => {
                JobState::Canceled
            }
        });
        end == Some(state)
            || (state == JobState::Expired && self.gone.is_some() && self.upstream == Upstream::Supermetrics)
    }
}

/// The run of a job, and its state.
pub(super) type Stage = (usize, JobState);

/// The stage in an answer.
pub(super) fn stage(job: &Job) -> Stage {
    (job.native_state.as_ref().unwrap().parse().unwrap(), job.state())
}

/// The position of a state in the order of states.
pub(super) const fn rank(state: JobState) -> u8 {
    match state {
        JobState::Queued => 0,
        JobState::Running | JobState::Unknown => 1,
        JobState::Succeeded | JobState::Failed | JobState::Canceled | JobState::Expired => 2,
    }
}

/// The answers that clients received for each job, and the violations.
#[derive(Debug, Default)]
pub(super) struct Log {
    ends: Mutex<BTreeMap<String, Stage>>,
    seen: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<String>>,
    reported: Mutex<usize>,
}

/// The answers for a job before a request was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    end: Option<Stage>,
    seen: bool,
}

impl Log {
    pub(super) fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    /// The number of received answers.
    pub(super) fn reported(&self) -> usize {
        *self.reported.lock().unwrap()
    }

    pub(super) fn before(&self, plan: &Plan) -> Before {
        let end = self.ends.lock().unwrap().get(&plan.id).copied();
        Before { end, seen: self.seen.lock().unwrap().contains(&plan.id) }
    }

    /// Records an answer to a request that was sent after `before`.
    pub(super) fn answered(&self, plan: &Plan, before: Before, answer: &LookupResult, now: Duration) {
        *self.reported.lock().unwrap() += 1;
        let Plan { id, .. } = plan;
        let (run, state) = match answer {
            Ok(seen) => stage(&seen.observation.job),
            Err(problem) if problem.code == ProblemCode::NotFound => {
                // an observed job may vanish where no expiry is documented
                let may_vanish = plan.upstream == Upstream::MindBridge;
                if before.end.is_some() || (before.seen && !may_vanish) || plan.is_there(now) {
                    self.fault(format!("{id} is reported missing at {now:?}, {before:?}"));
                }
                return;
            }
            Err(_) => return,
        };
        self.seen.lock().unwrap().insert(id.clone());
        if let Some((before, ended)) = before.end
            && (run < before || (run == before && state != ended))
        {
            self.fault(format!("{id} is reported as {run} {state:?} at {now:?}, after {before} {ended:?}"));
        }
        if !state.is_terminal() {
            return;
        }
        if !plan.may_end(run, state) {
            self.fault(format!("{id} is reported as {run} {state:?}, which it never was: {plan:?}"));
        }
        let mut ends = self.ends.lock().unwrap();
        match ends.get(id) {
            Some((known, other)) if *known == run && *other != state => {
                self.fault(format!("{id} completed its run {run} as {other:?} and as {state:?}"));
            }
            Some((known, _)) if *known >= run => {}
            Some(_) | None => {
                ends.insert(id.clone(), (run, state));
            }
        }
    }
}

/// A source behind the real upstream limiter, which counts its calls.
#[derive(Debug)]
pub(super) struct Gated {
    inner: Arc<dyn JobReader>,
    limiter: Arc<UpstreamLimiter>,
    credentials: Arc<dyn Credentials>,
    entropy: Arc<dyn Entropy>,
    calls: Mutex<Vec<Instant>>,
}

impl Gated {
    pub(super) fn new(
        inner: Arc<dyn JobReader>,
        credentials: Arc<dyn Credentials>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        let limits = LimiterSettings {
            per_second: u32::try_from(PER_SECOND).unwrap(),
            per_hour: 4_000,
            caller_share: 20,
            concurrency: CONCURRENCY,
            max_wait: Duration::from_secs(10),
        };
        let limiter = UpstreamLimiter::new(inner.name().clone(), limits, None);
        Arc::new(Self { inner, limiter, credentials, entropy, calls: Mutex::default() })
    }

    /// The most calls that began within one second.
    pub(super) fn most_in_a_second(&self) -> usize {
        let calls = self.calls.lock().unwrap();
        let within = |from: usize| {
            calls[from..].iter().take_while(|at| **at < calls[from] + Duration::from_secs(1)).count()
        };
        (0..calls.len()).map(within).max().unwrap_or(0)
    }

    async fn enter<T>(&self, trigger: &FetchTrigger, call: impl Future<Output = T>) -> Result<T, FetchError> {
        if self.credentials.current(self.inner.name()).is_none() {
            return Err(FetchError::Unconfigured);
        }
        let entered = self.limiter.acquire(trigger, Duration::from_secs(10)).await;
        let permit = entered.map_err(|refusal| match refusal {
            LimiterRefusal::Throttled(retry_after) | LimiterRefusal::Broken(retry_after) => {
                FetchError::Throttled { retry_after }
            }
            LimiterRefusal::Rejected => FetchError::CredentialRejected,
        })?;
        self.calls.lock().unwrap().push(Instant::now());
        tokio::time::sleep(Duration::from_millis(300).mul_f64(self.entropy.unit())).await;
        let answer = call.await;
        permit.finish(CallOutcome::Answered);
        Ok(answer)
    }
}

impl JobReader for Gated {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn upstream(&self) -> Upstream {
        self.inner.upstream()
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let fetches = self.enter(trigger, self.inner.fetch(ids, trigger)).await;
            let at = jiff::Timestamp::UNIX_EPOCH;
            fetches.unwrap_or_else(|error| {
                let refused = |_| Fetch { requested_at: at, observed_at: at, outcome: Err(error.clone()) };
                ids.iter().map(refused).collect()
            })
        })
    }

    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(async move { self.enter(trigger, self.inner.rows(id, range, trigger)).await? })
    }

    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        self.inner.probe(other)
    }

    fn status(&self) -> SourceStatus {
        self.inner.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.inner.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.inner.take_recheck()
    }
}

/// A key that is valid for every source.
#[derive(Debug)]
pub(super) struct OneKey;

impl Credentials for OneKey {
    fn current(&self, _: &SourceName) -> Option<Credential> {
        Some(Credential::Bearer(SecretString::from("key")))
    }

    fn pending(&self, _: &SourceName) -> Vec<Credential> {
        Vec::new()
    }

    fn status(&self, _: &SourceName) -> CredentialStatus {
        IN_FORCE
    }
}

/// The middle of every range.
#[derive(Debug)]
pub(super) struct Middle;

impl Entropy for Middle {
    fn unit(&self) -> f64 {
        0.5
    }
}

/// Notifications for any job, whether or not it changed.
#[derive(Debug)]
pub(super) struct RandomNotifications {
    pub(super) keys: Vec<JobKey>,
    pub(super) rng: Mutex<Rng>,
}

impl NotificationFeed for RandomNotifications {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(async {
            let (wait, gap) = {
                let mut rng = self.rng.lock().unwrap();
                (rng.u64(200..9_000), rng.u8(..6) == 0)
            };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if gap {
                return FeedEvent::Gap;
            }
            let mut rng = self.rng.lock().unwrap();
            let what =
                [RemoteChange::Changed, RemoteChange::Renewed, RemoteChange::Released, RemoteChange::Tracked];
            let notifications = (0..rng.usize(1..4)).map(|_| ChangeNotification {
                key: self.keys[rng.usize(..self.keys.len())].clone(),
                what: what[rng.usize(..what.len())],
            });
            FeedEvent::Notifications(notifications.collect())
        })
    }
}
