//! Watches jobs to their ends: a snapshot of each first, then what changes, then the end. Also waits for one end.
//!
//! Interest is registered before the snapshot is read, so a job that ends in between is not missed; all that is told
//! of a job comes from the one value that `follow` holds, so nothing is told twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::time::Instant;

use crate::domain::error::{Problem, ProblemCode};
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

use super::access::JobRef;
use super::answer::{Answer, Miss, Seen};
use super::follow::{Interest, Told};
use super::lookup::{Boarded, Seated};
use super::{Inner, Jobs};
use crate::ports::upstream::LookError;

/// Something to tell a watcher.
#[derive(Clone, Debug)]
pub struct Update {
    /// The job, as the watcher named it.
    pub reference: JobRef,
    /// First news, more news, or the last.
    pub kind: UpdateKind,
    /// The job, or why it cannot be told of.
    pub answer: Answer,
    /// Grows with each change told of this job by this process; a gap is a change that a later one overtook.
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
    reference: JobRef,
    interest: Interest,
    told: Told,
    begun: bool,
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
        let begin = Box::pin(async move { jobs.begin(&principal, refs, max_staleness).await });
        stream::once(begin).flatten()
    }

    /// Waits for the end of a job, at most `timeout`: then for the state reached.
    ///
    /// A reference that cannot be read and a job that nobody knows are answered at once. Cancel safe.
    pub async fn await_end(&self, principal: &Principal, reference: JobRef, timeout: Duration) -> Answer {
        let target = self.resolve(principal, &reference)?;
        let deadline = Instant::now() + timeout.min(self.inner.freshness.answer_within);
        let client = principal.shared_name();
        let mut interest = self.inner.following.interest(&target.key, client, None);
        let first = self.lookup_one(principal, reference, None);
        match tokio::time::timeout_at(deadline, first).await {
            Ok(first) => self.inner.settle(&target.key, &first),
            Err(_) => self.inner.following.offer_nothing(&target.key, Miss::Impatient),
        }
        loop {
            let told = interest.read();
            let waited = if told.is_over() || told.is_missing() {
                Err(())
            } else {
                tokio::time::timeout_at(deadline, interest.changed()).await.map_err(drop)
            };
            if waited.is_err() {
                // Read anew: a look that brought no change renews the time of what is told, and wakes nobody.
                let answer = interest.read().answer(&target.key, self.inner.clock.now());
                return answer.map(|seen| Seen { next_look: self.inner.next_look(&target.key), ..seen });
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
        let mut problems = Vec::new();
        let mut watched = Vec::new();
        let mut wanted = super::lookup::Wanted::new();
        for reference in refs {
            match self.resolve(principal, &reference) {
                Ok(target) => {
                    let interest =
                        self.inner.following.interest(&target.key, Arc::clone(&client), max_staleness);
                    wanted.insert(target.key, target.reader);
                    let (inner, told) = (Arc::clone(&self.inner), Told::default());
                    watched.push(Watched { inner, reference, interest, told, begun: false });
                }
                Err(problem) => problems.push(Update::refused(reference, problem)),
            }
        }
        let Boarded { answers, seats, deadline } = self.inner.set_out(&wanted, client, max_staleness).await;
        for (key, answer) in &answers {
            self.inner.settle(key, answer);
        }
        // What a look does not bring is told as it was held, and not as trouble first.
        seats.iter().filter_map(Seated::held).for_each(|older| self.inner.following.recall(older));
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
        stream::iter(problems).chain(told.filter_map(std::future::ready))
    }
}

impl Inner {
    /// Hands what a lookup brought to the followed job, for what came without a look: held, or believed missing.
    pub(super) fn settle(&self, key: &JobKey, answer: &Answer) {
        match answer {
            Ok(seen) => self.following.offer(&seen.observation),
            Err(Problem { code: ProblemCode::NotFound, .. }) => {
                self.following.offer_nothing(key, Miss::Look(LookError::NotFound));
            }
            Err(_) => self.following.offer_nothing(key, Miss::Impatient),
        }
    }
}

impl Watched {
    /// The next thing to tell; `None` once the last was told.
    async fn next(mut self) -> Option<(Update, Self)> {
        if self.begun && self.told.is_over() {
            return None;
        }
        let before = self.told.sequence;
        loop {
            self.told = self.interest.read();
            if !self.told.is_empty() && (!self.begun || self.told.sequence > before) {
                break;
            }
            self.interest.changed().await;
        }
        let is_final = self.told.is_over();
        let kind = match (self.begun, is_final) {
            (false, _) => UpdateKind::Snapshot,
            (true, false) => UpdateKind::Changed,
            (true, true) => UpdateKind::Ended,
        };
        self.begun = true;
        let key = self.interest.key();
        let mut answer = self.told.answer(key, self.inner.clock.now());
        if let Ok(seen) = &mut answer {
            seen.next_look = self.inner.next_look(key);
        }
        let sequence = self.told.sequence;
        let update = Update { reference: self.reference.clone(), kind, answer, sequence, is_final };
        Some((update, self))
    }
}

impl Update {
    /// The only update of a reference that cannot be watched.
    fn refused(reference: JobRef, problem: Problem) -> Self {
        Self { reference, kind: UpdateKind::Snapshot, answer: Err(problem), sequence: 0, is_final: true }
    }
}
