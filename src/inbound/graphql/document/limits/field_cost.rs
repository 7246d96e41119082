//! What a field of the schema costs. Each type states the costs of its fields beside its resolvers, in `schema`; a test
//! fails for a field without one.

use std::collections::HashMap;

/// The length of a list whose length is unknown: the maximum of the schema.
pub(in crate::inbound::graphql) const MOST_REFS: u64 = 200;
/// The same for a page of a connection.
pub(in crate::inbound::graphql) const MOST_PAGE: u64 = 100;

/// The cost of a field: its upstream calls, how many jobs its selections apply to, and the length of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum FieldCost {
    /// No call: one value of what the gateway has already.
    Free,
    /// No call: a list of such values, with this many items at most, or usually where there is no limit.
    List(u64),
    /// No call: the items of a connection, as many as the argument `first` of the field that it is the value of.
    PageItems,
    /// One call, one job.
    One,
    /// One call, one job and one item for each item of this list argument.
    EachOf(&'static str),
    /// No call, and as many jobs as the value of this argument.
    Page(&'static str),
    /// As many calls and jobs as the maximum length of a list inside an input object.
    Most,
    /// One call for each job it can apply to.
    EachJob,
}

/// The maximum length of a list, or the usual one where there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListLength {
    /// As many as the list given for this argument.
    Of(&'static str),
    /// As many as the argument `first` of the field that the connection is the value of.
    Page,
    /// This many.
    Items(u64),
}

impl FieldCost {
    /// The length of its list, if it states one.
    const fn length(self) -> Option<ListLength> {
        match self {
            Self::EachOf(argument) => Some(ListLength::Of(argument)),
            Self::PageItems => Some(ListLength::Page),
            Self::List(items) => Some(ListLength::Items(items)),
            Self::Free | Self::One | Self::Page(_) | Self::Most | Self::EachJob => None,
        }
    }

    /// Whether it calls an upstream, or determines to how many jobs its selections apply.
    const fn concerns_jobs(self) -> bool {
        match self {
            Self::One | Self::EachOf(_) | Self::Page(_) | Self::Most | Self::EachJob => true,
            Self::Free | Self::List(_) | Self::PageItems => false,
        }
    }
}

/// The costs of all fields of a schema.
#[derive(Debug, Default)]
pub(in crate::inbound::graphql) struct FieldCosts {
    types: HashMap<&'static str, HashMap<String, FieldCost>>,
    /// Of the root fields that concern jobs, by name.
    root: HashMap<String, FieldCost>,
    /// The same below the root, whatever their type: a document is not validated yet when its cost is computed.
    below: HashMap<String, FieldCost>,
}

impl FieldCosts {
    /// Adds the fields of a root type.
    pub(in crate::inbound::graphql) fn root(&mut self, name: &'static str, fields: &[(&str, FieldCost)]) {
        self.root.extend(concerning_jobs(fields.iter().copied()));
        self.types.insert(name, owned(fields.iter().copied()).collect());
    }

    /// Adds the fields of any other object type.
    pub(in crate::inbound::graphql) fn object<'a>(
        &mut self,
        name: &'static str,
        fields: impl Iterator<Item = (&'a str, FieldCost)> + Clone,
    ) {
        self.below.extend(concerning_jobs(fields.clone()));
        self.types.insert(name, owned(fields).collect());
    }

    /// The cost of a field; free for one that the schema does not have.
    pub(super) fn of(&self, field: &str, at_root: bool) -> FieldCost {
        let costs = if at_root { &self.root } else { &self.below };
        costs.get(field).copied().unwrap_or(FieldCost::Free)
    }

    /// The length of a list, if it is stated.
    pub(super) fn length(&self, parent: &str, field: &str) -> Option<ListLength> {
        match self.types.get(parent) {
            Some(fields) => fields.get(field)?.length(),
            // an interface has the fields of its objects
            None => self.types.values().find_map(|fields| fields.get(field)?.length()),
        }
    }

    /// Every field with a stated cost, as `Type.field`.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn stated(&self) -> std::collections::BTreeSet<String> {
        let types = self.types.iter();
        types.flat_map(|(name, fields)| fields.keys().map(move |field| format!("{name}.{field}"))).collect()
    }
}

fn owned<'a>(
    fields: impl Iterator<Item = (&'a str, FieldCost)>,
) -> impl Iterator<Item = (String, FieldCost)> {
    fields.map(|(name, cost)| (name.to_owned(), cost))
}

fn concerning_jobs<'a>(
    fields: impl Iterator<Item = (&'a str, FieldCost)>,
) -> impl Iterator<Item = (String, FieldCost)> {
    owned(fields.filter(|(_, cost)| cost.concerns_jobs()))
}
