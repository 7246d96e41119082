//! Requests each id once, however often it was given, and returns the results in the requested order.

use std::collections::HashMap;

use crate::domain::id::ExternalId;
use crate::ports::upstream::Fetch;

/// The distinct ids of a request.
pub(super) struct DistinctIds<'a> {
    /// Each id once, in the order of its first appearance.
    pub(super) ids: Vec<&'a ExternalId>,
    /// For each given id, its index among the distinct ones.
    indexes: Vec<usize>,
}

impl<'a> DistinctIds<'a> {
    pub(super) fn new(given: &'a [ExternalId]) -> Self {
        let mut ids = Vec::with_capacity(given.len());
        let mut known: HashMap<&ExternalId, usize> = HashMap::with_capacity(given.len());
        let indexes = given
            .iter()
            .map(|id| {
                *known.entry(id).or_insert_with(|| {
                    ids.push(id);
                    ids.len() - 1
                })
            })
            .collect();
        Self { ids, indexes }
    }

    /// The results as requested: same order, same length. Takes one result for each of `ids`.
    pub(super) fn spread(&self, fetches: &[Fetch]) -> Vec<Fetch> {
        self.indexes.iter().filter_map(|index| fetches.get(*index).cloned()).collect()
    }
}
