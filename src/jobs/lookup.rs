//! Asks once: access, store, flight, fetch, ingest, and up again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::error::Problem;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::principal::Principal;
use crate::ports::spawner::TaskKind;
use crate::ports::upstream::{Asker, JobReader, LookError};
use crate::telemetry::meters::{self, Looked};
use crate::telemetry::trace::{self, Found};

use super::access::{JobRef, Target};
use super::answer::{Answer, Miss, Seen, age};
use super::flight::{Seat, Ticket};
use super::fly::Flight;
use super::ingest::{Landing, patient};
use super::judge::{Verdict, judge};
use super::poller::Place;
use super::{Inner, Jobs};

/// The jobs to answer for, each with who can be asked.
pub(super) type Wanted = HashMap<JobKey, Arc<dyn JobReader>>;

/// New flights by source, waiting to depart.
pub(super) type Leads = HashMap<SourceName, (Arc<dyn JobReader>, Vec<Ticket<JobKey, Landing>>)>;

/// What could be answered at once, and who is still under way.
pub(super) struct Boarded {
    pub(super) answers: HashMap<JobKey, Answer>,
    pub(super) seats: Vec<Seated>,
    pub(super) deadline: Instant,
    /// How many of the seats are on flights of our own.
    pub(super) led: usize,
}

/// A seat on a flight, and what is held meanwhile.
pub(super) struct Seated {
    key: JobKey,
    seat: Seat<Landing>,
    held: Option<Observation>,
}

impl Seated {
    /// What is held of the job, older than asked for.
    pub(super) const fn held(&self) -> Option<&Observation> {
        self.held.as_ref()
    }
}

impl Jobs {
    /// Answers for one job. See [`Jobs::lookup`].
    pub async fn lookup_one(
        &self,
        principal: &Principal,
        reference: JobRef,
        max: Option<Duration>,
    ) -> Answer {
        let mut answers = self.lookup(principal, &[reference], max).await;
        answers.pop().unwrap_or_else(|| unreachable!("one answer a reference"))
    }

    /// Answers for jobs: same order, same length, each job asked for at most once however often it is named.
    ///
    /// An unfinished job is as old as `max_staleness` allows, or says why it is older. Always answers within the
    /// configured time. Cancel safe: a fetch under way goes on for the others, and for the store.
    pub async fn lookup(
        &self,
        principal: &Principal,
        refs: &[JobRef],
        max_staleness: Option<Duration>,
    ) -> Vec<Answer> {
        let targets: Vec<Result<Target, Problem>> =
            refs.iter().map(|one| self.resolve(principal, one)).collect();
        let mut wanted = Wanted::with_capacity(targets.len());
        for target in targets.iter().flatten() {
            wanted.entry(target.key.clone()).or_insert_with(|| Arc::clone(&target.reader));
        }
        let answers = self.inner.answer(wanted, principal, max_staleness).await;
        let pick = |target: Result<Target, Problem>| match answers.get(&target?.key) {
            Some(answer) => self.inner.shown(principal, answer.clone()),
            None => unreachable!("every wanted job is answered"),
        };
        let told = |(reference, target): (&JobRef, _)| {
            pick(target).map_err(|problem| self.inner.retryable_ref(principal, reference, problem))
        };
        refs.iter().zip(targets).map(told).collect()
    }
}

impl Inner {
    /// Answers for jobs, each as fresh as allowed, within the configured time. What comes of it is for the client only
    /// after [`Inner::shown`].
    pub(super) async fn answer(
        self: &Arc<Self>,
        wanted: Wanted,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> HashMap<JobKey, Answer> {
        let span = trace::lookup(wanted.len());
        let set_out = self.set_out(&wanted, principal, max_staleness);
        let Boarded { mut answers, seats, deadline, led } = span.place().hold(set_out).await;
        let misses = seats.len();
        let landings = seats.into_iter().map(|seated| self.landed(seated, deadline));
        answers.extend(join_all(landings).await);
        let stale = || answers.values().flatten().filter(|seen| seen.stale.is_some()).count();
        span.found(Found { misses, led, stale: if misses > 0 { stale() } else { 0 } });
        drop(span);
        for (key, seen) in answers.iter_mut().filter_map(|(key, answer)| Some((key, answer.as_mut().ok()?))) {
            seen.next_look = self.next_look(key);
        }
        answers
    }

    /// Answers from what is held, and sets out for the rest.
    ///
    /// A held job that the client may not see is gone about as one that does not exist: believed for as long as "no such
    /// job" is, then asked for, and no stand-in for an answer that does not come.
    pub(super) async fn set_out(
        self: &Arc<Self>,
        wanted: &Wanted,
        principal: &Principal,
        max_staleness: Option<Duration>,
    ) -> Boarded {
        let keys: Vec<JobKey> = wanted.keys().cloned().collect();
        // Made at full size, here and above: growing it step by step costs more than filling it.
        let mut held: HashMap<&JobKey, Observation> = HashMap::with_capacity(keys.len());
        let found = keys.iter().zip(self.ingest.held_all(&keys).await);
        held.extend(found.filter_map(|(key, held)| Some((key, held?))));
        let freshness = self.freshness();
        let allowed = max_staleness.unwrap_or(freshness.fresh_for);
        let believed = max_staleness.unwrap_or(freshness.missing_for);
        let now = self.clock.reading();

        let mut answers = HashMap::with_capacity(keys.len());
        let mut seats = Vec::new();
        let mut leads = Leads::new();
        let mut checks = Leads::new();
        for (key, reader) in wanted {
            let held = held.remove(key);
            let held = match held {
                Some(unseen) if !self.may_see(principal, &unseen.job) => {
                    if age(&unseen, now) <= believed {
                        meters::looked_up(Looked::BelievedMissing);
                        answers.insert(key.clone(), Ok(Seen::fresh(unseen, now)));
                        continue;
                    }
                    None
                }
                held => held,
            };
            let verdict = held.as_ref().map_or(Verdict::Ask, |held| {
                // what the upstream contradicts is not fresh, however new it is
                if !held.job.is_terminal() && self.ingest.is_contradicted(held) {
                    return Verdict::Ask;
                }
                judge(&held.job, reader.upstream(), age(held, now), allowed, freshness.rerun_check)
            });
            match (verdict, held) {
                (Verdict::Serve, Some(held)) => {
                    meters::looked_up(Looked::Held);
                    answers.insert(key.clone(), Ok(Seen::fresh(held, now)));
                }
                (Verdict::ServeAndCheck, Some(held)) => {
                    meters::looked_up(Looked::HeldAndChecked);
                    answers.insert(key.clone(), Ok(Seen::fresh(held, now)));
                    if reader.take_recheck() {
                        self.board(key, reader, &mut checks);
                    }
                }
                // One that is held can be missing only where that says nothing about its state.
                (_, held)
                    if (held.is_none() || !reader.upstream().documents_expiry())
                        && self.is_missing(key, believed).await =>
                {
                    meters::looked_up(Looked::BelievedMissing);
                    let miss = Miss::Look(LookError::NotFound);
                    let answer = match held {
                        Some(held) => Ok(Seen::stale(held, now, Some(miss.stale_reason()))),
                        None => Err(miss.problem(key)),
                    };
                    answers.insert(key.clone(), answer);
                }
                (_, held) => {
                    meters::looked_up(Looked::Asked);
                    let seat = self.board(key, reader, &mut leads);
                    seats.push(Seated { key: key.clone(), seat, held });
                }
            }
        }
        let led = leads.values().map(|(_, tickets)| tickets.len()).sum();
        self.depart(checks, &Asker::Background, None);
        self.depart(leads, &Asker::Client(principal.shared_name()), None);
        Boarded { answers, seats, deadline: Instant::now() + freshness.answer_within, led }
    }

    /// Waits for one landing, until the deadline. What was held stands in for what could not be learned.
    pub(super) async fn landed(&self, seated: Seated, deadline: Instant) -> (JobKey, Answer) {
        let Seated { key, seat, held } = seated;
        let landed = tokio::time::timeout_at(deadline, seat.landed()).await;
        let landing = landed.map_err(|_| Miss::Impatient).and_then(|landed| landed.ok_or(Miss::Lost));
        let now = self.clock.reading();
        let answer = match landing.and_then(|landing| landing.map_err(Miss::Look)) {
            Ok(observation) => Ok(Seen::fresh(observation, now)),
            Err(miss) => match held {
                Some(held) => Ok(Seen::stale(held, now, Some(miss.stale_reason()))),
                None => Err(miss.problem(&key)),
            },
        };
        (key, answer)
    }

    /// Takes a seat on the flight for a job; a new flight's ticket is put with those of its source.
    pub(super) fn board(
        &self,
        key: &JobKey,
        reader: &Arc<dyn JobReader>,
        leads: &mut Leads,
    ) -> Seat<Landing> {
        let (seat, ticket) = self.looks.board(key);
        meters::flight(ticket.is_some());
        if let Some(ticket) = ticket {
            let (_, tickets) =
                leads.entry(key.source.clone()).or_insert_with(|| (Arc::clone(reader), Vec::new()));
            tickets.push(ticket);
        }
        seat
    }

    /// Starts the flights, as many jobs to a task as fit one request, so that a slow one delays only its companions.
    pub(super) fn depart(self: &Arc<Self>, leads: Leads, asker: &Asker, place: Option<&Arc<Place>>) {
        for (reader, mut tickets) in leads.into_values() {
            // In one order everywhere: replicas that set out together for the same jobs pack the same requests.
            tickets.sort_unstable_by(|one, other| one.key().cmp(other.key()));
            let size = reader.upstream().ids_a_request();
            while !tickets.is_empty() {
                let companions = tickets.split_off(tickets.len().saturating_sub(size));
                let flight = Flight::new(Arc::clone(self), Arc::clone(&reader), asker.clone());
                let task = flight.fly(companions, place.map(Arc::clone));
                // what nobody waits for belongs to no request
                let below =
                    if *asker == Asker::Background { trace::Place::default() } else { trace::Place::here() };
                self.spawner.spawn(TaskKind::Flight, Box::pin(below.hold(task)));
            }
        }
    }

    /// When a followed job will be looked at again.
    pub(super) fn next_look(&self, key: &JobKey) -> Option<Timestamp> {
        self.clock.time_of_day().checked_add(self.following.next_look(key)?).ok()
    }

    /// Says whether "no such job" was heard recently enough to be believed.
    async fn is_missing(&self, key: &JobKey, believed: Duration) -> bool {
        let heard = self.ingest.tolerate(patient(self.store.missing_for(key)).await).flatten();
        heard.is_some_and(|ago| ago <= believed)
    }
}
