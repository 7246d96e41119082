//! A compiled selection: for each object type that a value can have, its fields in the order of the answer. Fragments,
//! type conditions and directives are resolved, and fields of one response key are merged.

use std::sync::atomic::{AtomicU64, Ordering};

/// The fields that are selected from a value, for each object type that the value can have.
#[derive(Debug, Default)]
pub(in crate::inbound::graphql) struct Selection(Vec<ObjectSelection>);

/// The fields that are selected from one object type.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct ObjectSelection {
    of: &'static str,
    /// Identifies it: no other selection of this process has the same.
    pub(in crate::inbound::graphql) id: u64,
    pub(in crate::inbound::graphql) fields: Vec<SelectedField>,
}

/// One field of the answer.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct SelectedField {
    /// The bytes before its value: `{"key":` of the first field, `,"key":` of any other.
    pub(in crate::inbound::graphql) prefix: Box<str>,
    pub(in crate::inbound::graphql) value: SelectedValue,
    /// What is selected from its value; empty for a scalar.
    pub(in crate::inbound::graphql) below: Selection,
}

/// What a selected field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum SelectedValue {
    /// `__typename`.
    TypeName,
    /// The field of this index in the description of its type.
    Field(usize),
}

impl Selection {
    /// Adds the fields that are selected from an object type.
    pub(in crate::inbound::graphql) fn push(&mut self, of: &'static str, fields: Vec<SelectedField>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.0.push(ObjectSelection { of, id, fields });
    }

    /// The fields that are selected from an object type; `None` if there are none.
    pub(in crate::inbound::graphql) fn of(&self, name: &str) -> Option<&ObjectSelection> {
        self.0.iter().find(|one| one.of == name).filter(|one| !one.fields.is_empty())
    }
}

impl SelectedField {
    /// A field with its response key, at its position in an object.
    pub(in crate::inbound::graphql) fn new(
        key: &str,
        is_first: bool,
        value: SelectedValue,
        below: Selection,
    ) -> Self {
        // a response key is a GraphQL name, which needs no escape
        let prefix = format!("{}\"{key}\":", if is_first { '{' } else { ',' }).into_boxed_str();
        Self { prefix, value, below }
    }
}
