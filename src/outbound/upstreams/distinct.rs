//! Asks about each id once, however often it was given, and hands the answers out in the order that was asked for.

use std::collections::HashMap;

use crate::domain::id::ExternalId;
use crate::ports::upstream::Look;

/// The different ids of a question.
pub(super) struct Distinct<'a> {
    /// Each id once, in the order of its first appearance.
    pub(super) ids: Vec<&'a ExternalId>,
    /// For each id that was given, its place among the different ones.
    places: Vec<usize>,
}

impl<'a> Distinct<'a> {
    pub(super) fn new(given: &'a [ExternalId]) -> Self {
        let mut ids = Vec::with_capacity(given.len());
        let mut known: HashMap<&ExternalId, usize> = HashMap::with_capacity(given.len());
        let places = given
            .iter()
            .map(|id| {
                *known.entry(id).or_insert_with(|| {
                    ids.push(id);
                    ids.len() - 1
                })
            })
            .collect();
        Self { ids, places }
    }

    /// The answers as they were asked for: same order, same length. Takes one answer for each of `ids`.
    pub(super) fn spread(&self, looks: &[Look]) -> Vec<Look> {
        self.places.iter().filter_map(|place| looks.get(*place).cloned()).collect()
    }
}
