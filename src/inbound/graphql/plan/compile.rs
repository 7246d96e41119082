//! Compiles the selection of a root field: resolves fragments and type conditions for each object type, evaluates
//! directives, and merges fields of one response key (the algorithm "collect fields" of the specification). Expects a
//! document that the engine has validated.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Field, Selection as Selected, SelectionSet};
use async_graphql::{Name, Positioned};

use super::conditions::Conditions;
use super::output::ObjectDescription;
use super::selection::{SelectedField, SelectedValue, Selection};
use crate::inbound::graphql::document::coercion::InputTypes;

/// The approximate size of a compiled selection, beside its response key.
const SELECTION_BYTES: usize = 64;

/// The object types that a plan can write, by name.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct OutputTypes(HashMap<&'static str, ObjectDescription>);

impl OutputTypes {
    /// Of these descriptions.
    pub(in crate::inbound::graphql) fn new(types: impl IntoIterator<Item = ObjectDescription>) -> Self {
        Self(types.into_iter().map(|of| (of.name, of)).collect())
    }
}

/// Why a selection is left to the engine: it contains what a plan cannot write, or is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct NotCovered;

/// The fields of one response key, to be merged.
pub(in crate::inbound::graphql) struct FieldGroup<'a> {
    pub(in crate::inbound::graphql) key: &'a Name,
    pub(in crate::inbound::graphql) fields: Vec<&'a Positioned<Field>>,
}

impl<'a> FieldGroup<'a> {
    /// Adds a field of the same response key. The engine's validation accepts some fields that cannot be merged.
    fn merge(&mut self, field: &'a Positioned<Field>) -> Result<(), NotCovered> {
        let is_same = self.fields.first().is_some_and(|first| {
            let (first, field) = (&first.node, &field.node);
            let mut arguments = first.arguments.iter().zip(&field.arguments);
            first.name.node == field.name.node
                && first.arguments.len() == field.arguments.len()
                && arguments.all(|(a, b)| a.0.node == b.0.node && a.1.node == b.1.node)
        });
        self.fields.push(field);
        if is_same { Ok(()) } else { Err(NotCovered) }
    }
}

/// Compiles the selections of one operation.
pub(in crate::inbound::graphql) struct Compiler<'a> {
    pub(in crate::inbound::graphql) types: &'a InputTypes,
    pub(in crate::inbound::graphql) outputs: &'a OutputTypes,
    pub(in crate::inbound::graphql) document: &'a ExecutableDocument,
    pub(in crate::inbound::graphql) conditions: &'a Conditions,
    /// How many bytes it may still have, approximately, so that the plans of a document are bounded by its text.
    pub(in crate::inbound::graphql) left: usize,
}

impl<'a> Compiler<'a> {
    /// Collects the fields of selection sets on a type for one of its object types, in the order of their response keys.
    pub(in crate::inbound::graphql) fn collect(
        &mut self,
        sets: &[&'a SelectionSet],
        of: &Name,
        object: &Name,
    ) -> Result<Vec<FieldGroup<'a>>, NotCovered> {
        let mut groups = Vec::new();
        for set in sets {
            self.collect_set(set, of, object, &mut groups)?;
        }
        Ok(groups)
    }

    fn collect_set(
        &mut self,
        set: &'a SelectionSet,
        of: &Name,
        object: &Name,
        groups: &mut Vec<FieldGroup<'a>>,
    ) -> Result<(), NotCovered> {
        for selection in &set.items {
            self.charge(SELECTION_BYTES)?;
            if !self.conditions.includes(selection.node.directives()).ok_or(NotCovered)? {
                continue;
            }
            match &selection.node {
                Selected::Field(field) => {
                    let key = &field.node.response_key().node;
                    self.charge(key.len())?;
                    match groups.iter_mut().find(|group| group.key == key) {
                        Some(group) => group.merge(field)?,
                        None => groups.push(FieldGroup { key, fields: vec![field] }),
                    }
                }
                Selected::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref().map(|one| &one.node.on.node);
                    let condition = condition.unwrap_or(of);
                    if self.applies(condition, of, object)? {
                        self.collect_set(&inline.node.selection_set.node, condition, object, groups)?;
                    }
                }
                Selected::FragmentSpread(spread) => {
                    let fragment = self.document.fragments.get(&spread.node.fragment_name.node);
                    let fragment = &fragment.ok_or(NotCovered)?.node;
                    let condition = &fragment.type_condition.node.on.node;
                    if self.applies(condition, of, object)? {
                        self.collect_set(&fragment.selection_set.node, condition, object, groups)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts bytes of the plan.
    pub(in crate::inbound::graphql) fn charge(&mut self, bytes: usize) -> Result<(), NotCovered> {
        self.left = self.left.checked_sub(bytes).ok_or(NotCovered)?;
        Ok(())
    }

    /// Whether a fragment with this type condition, within a selection on the type `of`, applies to an object.
    ///
    /// The engine ignores a fragment on a union within a selection on another type (async-graphql 8.0.0-rc.5). It
    /// executes one always, so that a document has the same answer each time.
    fn applies(&self, condition: &Name, of: &Name, object: &Name) -> Result<bool, NotCovered> {
        if condition != of && self.types.is_union(condition) {
            return Err(NotCovered);
        }
        Ok(self.types.is_a(object, condition))
    }

    /// Compiles what is selected from a value of a type, which can be an interface or a union.
    pub(in crate::inbound::graphql) fn selection(
        &mut self,
        of: &Name,
        fields: &[&'a Positioned<Field>],
    ) -> Result<Selection, NotCovered> {
        let mut selection = Selection::default();
        let sets: Vec<_> = fields.iter().map(|field| &field.node.selection_set.node).collect();
        if sets.iter().all(|set| set.items.is_empty()) {
            return Ok(selection);
        }
        let types = self.types;
        for object in types.objects_of(of) {
            let description = self.outputs.0.get(object.as_str()).ok_or(NotCovered)?;
            let mut fields = Vec::new();
            for group in self.collect(&sets, of, object)? {
                fields.push(self.field(object, description, &group, fields.is_empty())?);
            }
            selection.push(description.name, fields);
        }
        Ok(selection)
    }

    fn field(
        &mut self,
        object: &Name,
        description: &ObjectDescription,
        group: &FieldGroup<'a>,
        is_first: bool,
    ) -> Result<SelectedField, NotCovered> {
        let name = &group.fields.first().ok_or(NotCovered)?.node.name.node;
        if name == "__typename" {
            let value = SelectedValue::TypeName;
            return Ok(SelectedField::new(group.key, is_first, value, Selection::default()));
        }
        let mut fields = description.fields.iter();
        let index = fields.position(|field| field.is_written && field.name == name.as_str());
        let types = self.types;
        let of = types.output(object, name).ok_or(NotCovered)?.innermost();
        let below = self.selection(of, &group.fields)?;
        Ok(SelectedField::new(group.key, is_first, SelectedValue::Field(index.ok_or(NotCovered)?), below))
    }
}
