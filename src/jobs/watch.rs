//! Watches jobs to their ends: a snapshot of each first, then what changes, then the end. Also waits for one end.
//!
//! Interest is registered before the snapshot is read, so a job that ends in between is not missed; all that is told
//! of a job comes from the one value that `follow` holds, so nothing is told twice.
//!
//! Whether a watcher may see the job is asked of every value anew. One that may not is told, and kept waiting, as if the
//! job did not exist: the same words, the same numbers, the same end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{Instant, Sleep};

use crate::domain::error::{Problem, ProblemCode};
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

use super::access::{JobRef, Target, not_found};
use super::answer::{Answer, Miss, Seen, StaleReason};
use super::follow::{Interest, Told};
use super::lookup::{Boarded, Seated, Wanted};
use super::{Inner, Jobs};
use crate::ports::upstream::LookError;
use crate::telemetry::meters::{self, News};
use crate::telemetry::trace::{self, Found, Place};

/// Something to tell a watcher.
#[derive(Clone, Debug)]
pub struct Update {
    /// The job, as the watcher named it.
    pub reference: JobRef,
    /// First news, more news, or the last.
    pub kind: UpdateKind,
    /// The job, or why it cannot be told of.
    pub answer: Answer,
    /// Grows with each change told of this job by this process; a gap is a change that a later one overtook. While there
    /// is no job to be seen, it counts what this watcher was told.
    pub sequence: u64,
    /// Nothing more will be told of this job.
    pub is_final: bool,
}

/// Where an update stands among those of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// The first: how things stood.
    Snapshot,
    /// A change.
    Changed,
    /// The last, after others.
    Ended,
}

/// A job being watched.
struct Watched {
    inner: Arc<Inner>,
    principal: Arc<Principal>,
    reference: JobRef,
    interest: Interest,
    sequence: u64,
    last: Option<Last>,
    /// Until when one waits for a job to turn up.
    patience: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// What a watcher was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The job, as it stood at this number.
    Seen(u64),
    /// That there is none to be seen, and why.
    Unseen(ProblemCode),
}

/// What a client may know of what was told of a job.
enum View {
    /// Nothing has been learned yet.
    Nothing,
    /// There is none to be seen.
    Unseen(Problem),
    /// The job.
    Seen,
}

impl Jobs {
    /// Watches jobs: a snapshot of each, then its changes; the stream ends when every job has.
    ///
    /// A job named twice is told of twice, a reference that cannot be read once, as a final problem. Trouble upstream
    /// is freshness, never an end. Dropping the stream ends the interest.
    pub fn watch(
        &self,
        principal: Principal,
        refs: Vec<JobRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = Update> + Send + use<> {
        let jobs = self.clone();
        // boxed, so that what the beginning needs is given back when it is over: the stream lives for hours
        let begin = async move { jobs.begin(&principal, refs, max_staleness).await };
        let begin = Box::pin(Place::here().hold(begin));
        stream::once(begin).flatten()
    }

    /// Waits for the end of a job, at most `timeout`: then for the state reached.
    ///
    /// A job that is not found is waited for as a watcher waits, since it may have been made a moment ago; a reference that
    /// cannot be read is answered at once. Nobody waits for longer than what they came in with holds; who lost it meanwhile
    /// is answered as if there were no such job. Without a time to wait it is one lookup like any other. Cancel safe.
    pub async fn await_end(&self, principal: &Principal, reference: JobRef, timeout: Duration) -> Answer {
        if timeout.is_zero() {
            return self.lookup_one(principal, reference, None).await;
        }
        let target = self.resolve(principal, &reference);
        let target = target.map_err(|problem| self.inner.retryable_ref(principal, &reference, problem))?;
        let stood = self.still_stands(principal);
        let holds = self.pass_left(principal).unwrap_or(Duration::MAX);
        let deadline = Instant::now() + timeout.min(self.inner.freshness().answer_within).min(holds);
        let Target { key, reader } = target;
        let mut interest = self.inner.following.interest(&key, principal.shared_name(), None);
        let first = self.inner.answer(Wanted::from([(key.clone(), reader)]), principal, None);
        match tokio::time::timeout_at(deadline, first).await {
            Ok(answers) => answers.iter().for_each(|(key, answer)| self.inner.settle(key, answer)),
            Err(_) => self.inner.feeds.turned(self.inner.following.offer_nothing(&key, Miss::Impatient)),
        }
        // Counted from when this caller would have been told, so that it ends alike whatever others know of the job.
        let mut missing_until = None;
        loop {
            let told = interest.read();
            if self.inner.is_gone(&key) {
                return Err(not_found(&key));
            }
            let until = match self.inner.view(principal, &told, &key) {
                View::Seen if told.is_over() => None,
                View::Nothing | View::Seen => Some(deadline),
                View::Unseen(problem) => match problem.code {
                    ProblemCode::FollowLimit => None,
                    ProblemCode::NotFound => {
                        let missing_for = self.inner.following.missing_for();
                        let until = *missing_until.get_or_insert_with(|| Instant::now() + missing_for);
                        Some(deadline.min(until))
                    }
                    ProblemCode::Expired
                    | ProblemCode::InvalidRef
                    | ProblemCode::Throttled
                    | ProblemCode::Unavailable
                    | ProblemCode::TimedOut
                    | ProblemCode::CredentialRejected
                    | ProblemCode::Unconfigured
                    | ProblemCode::BadAnswer
                    | ProblemCode::Internal => Some(deadline),
                },
            };
            let waited = match until {
                Some(until) => tokio::time::timeout_at(until, interest.changed()).await.map_err(drop),
                None => Err(()),
            };
            if waited.is_err() {
                // Read anew: a look that brought no change renews the time of what is told, and wakes nobody.
                let told = interest.read();
                // What was taken back meanwhile opens nothing that came after.
                if stood && !self.still_stands(principal) && self.pass_left(principal) != Some(Duration::ZERO)
                {
                    return Err(not_found(&key));
                }
                let waited_it_out = missing_until.is_some_and(|until| until <= Instant::now());
                return match self.inner.view(principal, &told, &key) {
                    View::Unseen(problem) if waited_it_out => Err(problem),
                    View::Unseen(problem) => Err(self.inner.retryable(principal, &key, problem)),
                    View::Nothing | View::Seen => self.inner.told(&told, &key),
                };
            }
        }
    }

    /// Registers all interests, sets out for all snapshots in one go, and returns what is to be told from then on.
    async fn begin(
        &self,
        principal: &Principal,
        refs: Vec<JobRef>,
        max_staleness: Option<Duration>,
    ) -> impl Stream<Item = Update> + Send + use<> {
        let client = principal.shared_name();
        let viewer = Arc::new(principal.clone());
        let mut problems = Vec::new();
        let mut watched = Vec::new();
        let mut wanted = Wanted::new();
        for reference in refs {
            match self.resolve(principal, &reference) {
                Ok(target) => {
                    let interest =
                        self.inner.following.interest(&target.key, Arc::clone(&client), max_staleness);
                    wanted.insert(target.key, target.reader);
                    let (inner, viewer) = (Arc::clone(&self.inner), Arc::clone(&viewer));
                    watched.push(Watched::new(inner, viewer, reference, interest));
                }
                Err(problem) => problems.push(Update::refused(reference, problem)),
            }
        }
        let span = trace::lookup(wanted.len());
        let set_out = self.inner.set_out(&wanted, principal, max_staleness);
        let Boarded { answers, seats, deadline, led } = span.place().hold(set_out).await;
        span.found(Found { misses: seats.len(), led, stale: 0 });
        for (key, answer) in &answers {
            self.inner.settle(key, answer);
        }
        // What a look does not bring is told as it was held, and not as trouble first.
        let held = seats.iter().filter_map(Seated::held);
        held.for_each(|older| self.inner.feeds.turned(self.inner.following.recall(older)));
        // Each landing is told as it comes, so that a slow source holds back nobody else's news.
        let inner = Arc::clone(&self.inner);
        let landings = stream::iter(seats).map(move |seated| {
            let inner = Arc::clone(&inner);
            async move {
                let (key, answer) = inner.landed(seated, deadline).await;
                inner.settle(&key, &answer);
                None
            }
        });
        let landings = landings.buffer_unordered(usize::MAX).boxed();
        let changes = watched.into_iter().map(|one| stream::unfold(one, Watched::next).map(Some).boxed());
        let told = stream::select_all(changes.chain(std::iter::once(landings)));
        let problems = stream::iter(problems).inspect(|_| meters::update_told(meters::Told::Watch));
        problems.chain(told.filter_map(std::future::ready))
    }
}

impl Inner {
    /// Hands what a lookup brought to the followed job, for what came without a look: held, or believed missing.
    pub(super) fn settle(&self, key: &JobKey, answer: &Answer) {
        let turned = match answer {
            // not found a moment ago, or not understood: what is held is told with that
            Ok(Seen { observation, stale: Some(StaleReason::BadAnswer), .. }) => {
                self.feeds.turned(self.following.recall(observation));
                self.following.offer_nothing(key, Miss::Look(LookError::NotFound))
            }
            Ok(seen) => self.following.offer(&seen.observation),
            Err(Problem { code: ProblemCode::NotFound, .. }) => {
                self.following.offer_nothing(key, Miss::Look(LookError::NotFound))
            }
            Err(_) => self.following.offer_nothing(key, Miss::Impatient),
        };
        self.feeds.turned(turned);
    }
}

impl Inner {
    /// What a client may know of what was told of a job.
    fn view(&self, principal: &Principal, told: &Told, key: &JobKey) -> View {
        if told.seen().is_some_and(|seen| self.may_see(principal, &seen.job)) {
            return View::Seen;
        }
        told.unseen(key).map_or(View::Nothing, View::Unseen)
    }

    /// What is told of a job to a client who may see it.
    fn told(&self, told: &Told, key: &JobKey) -> Answer {
        let answer = told.answer(key, self.clock.reading());
        answer.map(|seen| Seen { next_look: self.next_look(key), ..seen })
    }
}

impl Watched {
    const fn new(
        inner: Arc<Inner>,
        principal: Arc<Principal>,
        reference: JobRef,
        interest: Interest,
    ) -> Self {
        let (sequence, last, patience, over) = (0, None, None, false);
        Self { inner, principal, reference, interest, sequence, last, patience, over }
    }

    /// The next thing to tell; `None` once the last was told.
    async fn next(mut self) -> Option<(Update, Self)> {
        if self.over {
            return None;
        }
        let (answer, last, is_final) = loop {
            let told = self.interest.read();
            if let Some(news) = self.news(&told) {
                self.measure(&told);
                break news;
            }
            match &mut self.patience {
                None => self.interest.changed().await,
                Some(patience) => tokio::select! {
                    () = self.interest.changed() => {}
                    () = patience => break self.nothing_to_see(),
                },
            }
        };
        let kind = match (self.last, is_final) {
            (None, _) => UpdateKind::Snapshot,
            (Some(_), false) => UpdateKind::Changed,
            (Some(_), true) => UpdateKind::Ended,
        };
        meters::update_told(meters::Told::Watch);
        self.sequence += 1;
        if let Last::Seen(sequence) = last {
            self.sequence = self.sequence.max(sequence);
        }
        // Counted from when this watcher was told, so that it ends alike whatever others know of the job.
        let waits = last == Last::Unseen(ProblemCode::NotFound) && !is_final;
        self.patience = waits.then(|| Box::pin(tokio::time::sleep(self.inner.following.missing_for())));
        (self.last, self.over) = (Some(last), is_final);
        let key = self.interest.key();
        // the last word is spoken when the time is over in which asking again helps
        let retryable = |problem| self.inner.retryable(&self.principal, key, problem);
        let answer = if is_final { answer } else { answer.map_err(retryable) };
        let (reference, sequence) = (self.reference.clone(), self.sequence);
        Some((Update { reference, kind, answer, sequence, is_final }, self))
    }

    /// Notes how old the news is that is about to be told, and how much of it was overtaken.
    fn measure(&self, told: &Told) {
        let Some(Last::Seen(before)) = self.last else { return };
        meters::updates_coalesced(meters::Told::Watch, told.sequence.saturating_sub(before + 1));
        if let Some(found) = told.found().filter(|found| found.sequence > before) {
            let since = |at, now: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
            let reading = self.inner.clock.reading();
            let now = reading.now;
            // What the upstream says is dated by its clock, which is right; what we saw, by process time.
            let told_at = if found.said { reading.date(now) } else { now };
            let news = News {
                lag: since(found.changed_at, told_at),
                said: found.said,
                between: since(found.looked_before, found.at),
                since_found: since(found.at, now),
            };
            meters::news_told(&self.interest.key().source, news);
        }
    }

    /// What there is to tell that was not told yet, and whether it is the last.
    fn news(&self, told: &Told) -> Option<(Answer, Last, bool)> {
        let key = self.interest.key();
        if self.inner.is_gone(key) {
            return Some(self.nothing_to_see());
        }
        match (self.inner.view(&self.principal, told, key), self.last) {
            (View::Seen, Some(Last::Seen(before))) if told.sequence <= before => None,
            (View::Seen, _) => Some((self.inner.told(told, key), Last::Seen(told.sequence), told.is_over())),
            (_, Some(Last::Seen(_))) => Some(self.nothing_to_see()),
            (View::Nothing, _) => None,
            // Trouble is no news of a job that is not there: one out of sight may have ended, and is not looked at.
            (View::Unseen(problem), Some(Last::Unseen(before)))
                if before == problem.code || before == ProblemCode::NotFound =>
            {
                None
            }
            (View::Unseen(problem), _) => {
                let last = Last::Unseen(problem.code);
                Some((Err(problem), last, last == Last::Unseen(ProblemCode::FollowLimit)))
            }
        }
    }

    /// The last word on a job that went out of sight, or never came into it.
    fn nothing_to_see(&self) -> (Answer, Last, bool) {
        (Err(not_found(self.interest.key())), Last::Unseen(ProblemCode::NotFound), true)
    }
}

impl Update {
    /// The only update of a reference that cannot be watched.
    fn refused(reference: JobRef, problem: Problem) -> Self {
        Self { reference, kind: UpdateKind::Snapshot, answer: Err(problem), sequence: 0, is_final: true }
    }
}
