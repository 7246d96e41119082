//! Asks about each id once, however often it was given, and hands the answers out in the order that was asked for.

use std::collections::HashMap;

use crate::domain::id::ExternalId;
use crate::ports::upstream::Fetch;

/// The different ids of a question.
pub(super) struct DistinctIds<'a> {
    /// Each id once, in the order of its first appearance.
    pub(super) ids: Vec<&'a ExternalId>,
    /// For each id that was given, its place among the different ones.
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

    /// The answers as they were asked for: same order, same length. Takes one answer for each of `ids`.
    pub(super) fn spread(&self, fetches: &[Fetch]) -> Vec<Fetch> {
        self.indexes.iter().filter_map(|index| fetches.get(*index).cloned()).collect()
    }
}
