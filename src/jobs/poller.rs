//! The loop that looks again by itself: takes what is due from `follow`, and asks in as few requests as the upstream
//! allows, never more at a time than leaves room for callers who wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::domain::id::{JobKey, SourceName};
use crate::ports::spawner::TaskKind;
use crate::ports::upstream::{Asker, JobReader};

use super::Inner;
use super::answer::Miss;
use super::follow::{Following, Room};
use super::lookup::Leads;

/// The polls under way, by source.
#[derive(Debug, Default)]
pub(super) struct Polls(Mutex<BTreeMap<SourceName, Arc<AtomicUsize>>>);

/// A place among the polls of a source. Dropping it frees the place and wakes the loop.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<AtomicUsize>,
    following: Arc<Following>,
}

/// Jobs being looked at. Dropping it plans the next look at those of which nothing was told meanwhile: also when the look
/// broke, or never began.
#[derive(Debug)]
struct Looking {
    following: Arc<Following>,
    keys: Vec<JobKey>,
}

impl Polls {
    /// Lets go of the count of a source that is gone. Places that are taken still give themselves back.
    pub(super) fn forget(&self, source: &SourceName) {
        self.lock().remove(source);
    }

    /// How many jobs of a source may be looked at now: half of its concurrency is left to callers who wait.
    fn room(&self, reader: &dyn JobReader) -> Room {
        let places = (reader.status().budget.concurrency as usize / 2).max(1);
        let taken = self.lock().get(reader.name()).map_or(0, |taken| taken.load(Ordering::Relaxed));
        let a_request = reader.upstream().ids_a_request();
        Room { jobs: places.saturating_sub(taken) * a_request, a_request }
    }

    fn take(&self, source: &SourceName, following: &Arc<Following>) -> Place {
        let taken = Arc::clone(self.lock().entry(source.clone()).or_default());
        taken.fetch_add(1, Ordering::Relaxed);
        Place { taken, following: Arc::clone(following) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, Arc<AtomicUsize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.following.wake();
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        for key in &self.keys {
            self.following.rest(key);
        }
    }
}

/// Looks at what is due, until told to stop.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    loop {
        let round = inner.following.round(|source| inner.room(source));
        for (source, due) in round.due {
            inner.poll(&source, &due);
        }
        let next = async {
            match round.next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = inner.following.woken() => {}
            () = next => {}
        }
    }
}

impl Inner {
    fn room(&self, source: &SourceName) -> Option<Room> {
        self.readers.get(source).map(|reader| self.polls.room(reader.as_ref()))
    }

    /// Starts looking at jobs of one source, one task a request.
    fn poll(self: &Arc<Self>, source: &SourceName, due: &[JobKey]) {
        let Some(reader) = self.readers.get(source) else {
            // it went between the round and now: if it comes back, they are looked at again
            for key in due {
                self.following.rest(key);
            }
            return;
        };
        for companions in due.chunks(reader.upstream().ids_a_request()) {
            let place = self.polls.take(source, &self.following);
            let looking = Looking { following: Arc::clone(&self.following), keys: companions.to_vec() };
            let task = look(Arc::clone(self), Arc::clone(&reader), looking, place);
            self.spawner.spawn(TaskKind::Poll, Box::pin(task));
        }
    }
}

/// Looks at some jobs by the same flights as callers do. What lands is told by `ingest`; what is lost, here.
async fn look(inner: Arc<Inner>, reader: Arc<dyn JobReader>, looking: Looking, place: Place) {
    let mut leads = Leads::new();
    let keys = &looking.keys;
    let seats: Vec<_> = keys.iter().map(|key| inner.board(key, &reader, &mut leads)).collect();
    // The place is that of asking the upstream: whoever waits for another replica takes none.
    let place = Arc::new(place);
    inner.depart(leads, &Asker::Background, Some(&place));
    drop(place);
    let landings = join_all(seats.into_iter().map(super::flight::Seat::landed)).await;
    for (key, landing) in keys.iter().zip(landings) {
        if landing.is_none() {
            inner.following.looked(key, Err(Miss::Lost));
        }
    }
}
