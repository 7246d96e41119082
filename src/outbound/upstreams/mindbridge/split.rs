//! A batch that cannot be read is split, so that the oddity of one job never changes the answer for another: halves, then
//! a query for one id, then a read of that job alone. A job that needs its own read is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::MindBridge;
use crate::domain::id::ExternalId;
use crate::ports::upstream::{Asker, Look, LookError};

/// Queries for the parts of one batch, the batch itself included. Four such jobs among a hundred are found with 47.
const QUERIES: usize = 48;
/// How many jobs that cannot be read alone either, while nothing of the batch can, are the source's fault.
const HOPELESS: usize = 3;
/// How many jobs are remembered, and for how long.
const MOST: usize = 1_000;
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// The jobs that are left out of batches.
#[derive(Debug, Default)]
pub(super) struct ReadAlone(Mutex<HashMap<ExternalId, Instant>>);

impl ReadAlone {
    /// Says whether this job is read alone.
    pub(super) fn holds(&self, id: &ExternalId) -> bool {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(id).is_some_and(|since| since.elapsed() < REMEMBERED_FOR)
    }

    fn add(&self, id: &ExternalId) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= MOST && !jobs.contains_key(id) {
            jobs.retain(|_, since| since.elapsed() < REMEMBERED_FOR);
            let oldest = jobs.iter().min_by_key(|(_, since)| **since).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| jobs.len() >= MOST) {
                jobs.remove(&oldest);
            }
        }
        jobs.insert(id.clone(), Instant::now());
    }
}

/// Why a batch has no page.
#[derive(Debug)]
pub(super) struct Failed<'a> {
    /// The ids without an answer.
    pub(super) ids: Vec<&'a ExternalId>,
    /// The answer they have so far.
    pub(super) look: Look,
    /// Whether one of the jobs may be the reason.
    pub(super) splits: bool,
}

impl MindBridge {
    /// Looks at several different ids by queries; splits what cannot be read. Settles what [`MindBridge::query`] settles,
    /// and each id whose batch has no page.
    pub(super) async fn query_in_parts(
        &self,
        ids: &[&ExternalId],
        asker: &Asker,
        deadline: Instant,
    ) -> HashMap<ExternalId, Look> {
        let mut looks = HashMap::with_capacity(ids.len());
        let mut parts = vec![ids.to_vec()];
        // what is left over when there were too many queries
        let mut left: Vec<Failed<'_>> = Vec::new();
        let mut alone: Vec<&ExternalId> = Vec::new();
        let (mut queries, mut readable) = (0, false);
        while let Some(part) = parts.pop() {
            queries += 1;
            let (settled, failed) = self.query(&part, asker, deadline).await;
            readable |= failed.is_none() || !settled.is_empty();
            looks.extend(settled);
            let Some(failed) = failed else { continue };
            match failed.ids.as_slice() {
                _ if !failed.splits => settle(&mut looks, &failed),
                _ if !readable && alone.len() >= HOPELESS => left.push(failed),
                // the batch itself is not the reason where it had but one
                [one] => {
                    let look = self.get(one, asker, deadline).await;
                    readable |= matches!(look.outcome, Ok(_) | Err(LookError::NotFound));
                    alone.push(one);
                    looks.insert((*one).clone(), look);
                }
                _ if queries + parts.len() + 2 > QUERIES => left.push(failed),
                ids => {
                    let (first, second) = ids.split_at(ids.len().div_ceil(2));
                    parts.push(second.to_vec());
                    parts.push(first.to_vec());
                }
            }
        }
        if readable {
            for id in alone {
                self.alone.add(id);
            }
        }
        for failed in left {
            if readable {
                // one by one, as where there is no query endpoint; the gate bounds how fast
                let reads =
                    failed.ids.iter().map(async |id| ((*id).clone(), self.get(id, asker, deadline).await));
                looks.extend(join_all(reads).await);
            } else {
                settle(&mut looks, &failed);
            }
        }
        looks
    }
}

/// Gives each id of a batch the answer of the batch.
fn settle(looks: &mut HashMap<ExternalId, Look>, failed: &Failed<'_>) {
    looks.extend(failed.ids.iter().map(|id| ((*id).clone(), failed.look.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::testing::id;

    #[tokio::test(start_paused = true)]
    async fn the_jobs_read_alone_are_bounded_and_forgotten() {
        let alone = ReadAlone::default();
        for number in 0..=MOST {
            alone.add(&id(&format!("job{number}")));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(alone.0.lock().unwrap().len(), MOST);
        assert!(!alone.holds(&id("job0")) && alone.holds(&id("job1")), "the oldest goes");
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(!alone.holds(&id("job1000")));
    }
}
