//! How a flight flies: it takes the turns of its jobs, looks at those that are ours, and waits for what other replicas
//! bring of the rest. The one place that every look of this process passes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::domain::id::{ExternalId, JobKey};
use crate::ports::spawner::TaskKind;
use crate::ports::turns::{Claim, Fence, Unless};
use crate::ports::upstream::{Asker, Detail, JobReader, Look, LookError};

use super::Inner;
use super::flight::Ticket;
use super::ingest::Landing;
use super::poller::Place;
use crate::telemetry::trace::{self, Caller};

/// A hint that is lost costs this long at most.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The longest a flight waits for other replicas: longer than any caller does, and than one look may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest a flight may take, longer than all that a source and a store need for themselves: one that a port never
/// answers is lost then, and its jobs are looked at again.
pub(super) const AT_MOST: Duration = Duration::from_mins(5);
/// How often a turn may be lost between question and answer before the job is called unavailable.
const TURNS_LOST: usize = 3;

/// What a flight flies with.
#[derive(Clone)]
pub(super) struct Flight {
    inner: Arc<Inner>,
    reader: Arc<dyn JobReader>,
    asker: Asker,
}

/// A job whose turn is ours.
type Turn = (Ticket<JobKey, Landing>, Fence);

impl Flight {
    pub(super) fn new(inner: Arc<Inner>, reader: Arc<dyn JobReader>, asker: Asker) -> Self {
        Self { inner, reader, asker }
    }

    /// Lands every ticket, or loses those that take too long. A place among the polls is kept as long as the upstream is
    /// asked.
    pub(super) async fn fly(self, tickets: Vec<Ticket<JobKey, Landing>>, place: Option<Arc<Place>>) {
        let jobs = tickets.len();
        if tokio::time::timeout(AT_MOST, Box::pin(self.land_all(tickets, place))).await.is_err() {
            tracing::warn!(jobs, "fetch timed out; the jobs are polled again");
        }
    }

    async fn land_all(self, tickets: Vec<Ticket<JobKey, Landing>>, place: Option<Arc<Place>>) {
        let keys: Vec<JobKey> = tickets.iter().map(|ticket| ticket.key().clone()).collect();
        // Nobody waits for a poll in particular: what another replica saw a moment ago will do.
        let unless = match &self.asker {
            Asker::Background => Unless::KeptWithin(self.inner.following.recent()),
            Asker::Operator | Asker::Client(_) => Unless::Never,
        };
        let claims = self.inner.turns.claim(&keys, unless).await;
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (ticket, claim) in tickets.into_iter().zip(claims) {
            match claim {
                Claim::Mine(fence) => ours.push((ticket, fence)),
                claim @ (Claim::Theirs { .. } | Claim::Kept) => others.push(self.settle(ticket, claim)),
            }
        }
        tokio::join!(self.look_at(ours, place), join_all(others));
    }

    /// Looks at jobs whose turns are ours, in one request as far as the upstream takes them.
    async fn look_at(&self, turns: Vec<Turn>, place: Option<Arc<Place>>) {
        if turns.is_empty() {
            return;
        }
        let held: Vec<_> = turns.iter().map(|(ticket, fence)| (ticket.key().clone(), *fence)).collect();
        let (looks, caller) = self.look(&held).await;
        drop(place);
        let caller = &caller;
        let landings = turns.into_iter().zip(looks).map(async |((ticket, fence), look)| {
            match self.take(ticket.key(), look, fence, caller).await {
                Some(landing) => ticket.land(landing),
                None => self.settle(ticket, Claim::Kept).await,
            }
        });
        join_all(landings).await;
    }

    /// Takes in what came of one look, in the trace of its job.
    async fn take(&self, key: &JobKey, look: Look, fence: Fence, caller: &Caller) -> Option<Landing> {
        if !trace::is_on() {
            return self.ingest(key, look, fence).await;
        }
        let outcome = look.outcome.as_ref().map(|job| job.state().name()).map_err(LookError::word);
        let polled = self.asker == Asker::Background;
        let span = trace::look(key, (look.asked_at, look.observed_at), caller, polled, outcome);
        span.place().hold(Box::pin(self.ingest(key, look, fence))).await
    }

    /// Asks the upstream, and renews the turns while it takes its time.
    async fn look(&self, held: &[(JobKey, Fence)]) -> (Vec<Look>, Caller) {
        let span = match (&self.asker, held.first()) {
            (Asker::Background, Some((key, _))) => trace::poll(key.source.as_str(), held.len()),
            (Asker::Background | Asker::Operator | Asker::Client(_), _) => trace::Active::default(),
        };
        let (place, caller) = span.place().with_caller();
        (place.hold(self.ask(held)).await, caller)
    }

    async fn ask(&self, held: &[(JobKey, Fence)]) -> Vec<Look> {
        let ids: Vec<ExternalId> = held.iter().map(|(key, _)| key.external_id.clone()).collect();
        let mut look = self.reader.look(&ids, &self.asker);
        let every = self.inner.turns.renew_every();
        loop {
            tokio::select! {
                looks = &mut look => return looks,
                () = tokio::time::sleep(every) => self.inner.turns.renew(held).await,
            }
        }
    }

    /// Takes in what came of a look. The first rows of a followed job are read as soon as it is seen to have succeeded.
    async fn ingest(&self, key: &JobKey, look: Look, fence: Fence) -> Option<Landing> {
        let open = self.inner.following.is_open(key);
        let landing = self.inner.ingest.take(key, look, fence).await?;
        if let Some(observation) = landing.as_ref().ok().filter(|_| open) {
            self.inner.read_ahead(&self.reader, observation);
        }
        if matches!(landing, Err(LookError::NotFound)) && self.inner.following.lacks_proof(key) {
            self.probe();
        }
        Some(landing)
    }

    /// Asks the source for a sign that it is the one that is meant, since it does not find what it showed before.
    fn probe(&self) {
        let (inner, reader) = (Arc::clone(&self.inner), Arc::clone(&self.reader));
        let probe = async move {
            if reader.probe(None).await.is_ok() {
                inner.following.proved(reader.name());
            }
        };
        self.inner.spawner.spawn(TaskKind::Poll, Box::pin(trace::Place::default().hold(probe)));
    }

    /// Lands one job with what another replica brings, or by looking after all.
    async fn settle(&self, ticket: Ticket<JobKey, Landing>, first: Claim) {
        let key = std::slice::from_ref(ticket.key());
        let heard = self.inner.hearing.listen(ticket.key());
        let give_up = Instant::now() + PATIENCE;
        let mut claim = Some(first);
        let mut lost = 0;
        let landing = loop {
            let unless = match claim.take() {
                Some(Claim::Kept) => match self.inner.read_kept(ticket.key()).await {
                    Some(landing) => break landing,
                    None => Unless::Never,
                },
                Some(Claim::Theirs { seen, at_most }) => {
                    let wait = at_most.min(ASK_AGAIN).min(give_up.saturating_duration_since(Instant::now()));
                    tokio::select! {
                        () = heard.heard() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                    Unless::KeptSince(seen)
                }
                Some(Claim::Mine(fence)) => {
                    let (mut looks, caller) = self.look(&[(ticket.key().clone(), fence)]).await;
                    let Some(look) = looks.pop() else { break Err(unavailable()) };
                    if let Some(landing) = self.take(ticket.key(), look, fence, &caller).await {
                        break landing;
                    }
                    lost += 1;
                    Unless::Never
                }
                None => Unless::Never,
            };
            if lost >= TURNS_LOST || Instant::now() >= give_up {
                break Err(unavailable());
            }
            claim = self.inner.turns.claim(key, unless).await.pop();
        };
        ticket.land(landing);
    }
}

fn unavailable() -> LookError {
    LookError::Unavailable(Detail::new("other replicas held the turn of this job, and brought nothing"))
}
