//! The types of a schema, as far as documents are checked by them: parsed once from its text.

use std::collections::HashMap;

use async_graphql::Name;
use async_graphql::parser::types::{OperationType, TypeSystemDefinition};
use async_graphql::parser::{self, parse_schema};

use super::input::{InputType, TextScalar, built_in, input_type};
use super::output::{OutputField, OutputType, Outputs};
use crate::inbound::graphql::document::limits::field_cost::FieldCosts;

/// The input types of a schema, by name, and where they are used: the arguments of its fields and directives.
#[derive(Debug)]
pub struct InputTypes {
    pub(super) types: HashMap<Name, InputType>,
    pub(super) outputs: Outputs,
    costs: FieldCosts,
}

impl InputTypes {
    /// Parses the input types of a schema from its text. `scalars` are its custom scalars that are strings of a certain
    /// form; any other accepts every value.
    ///
    /// # Errors
    /// Returns an error if the text is not a schema.
    pub fn from_sdl(sdl: &str, scalars: &[(&str, TextScalar)]) -> Result<Self, parser::Error> {
        let mut types: HashMap<Name, InputType> = built_in().into_iter().collect();
        let mut outputs = Outputs::default();
        for definition in parse_schema(sdl)?.definitions {
            outputs.read(&definition);
            if let TypeSystemDefinition::Type(definition) = definition
                && let Some(of) = input_type(&definition.node, scalars)
            {
                types.insert(definition.node.name.node, of);
            }
        }
        Ok(Self { types, outputs, costs: FieldCosts::default() })
    }

    /// The same, with the costs of the fields.
    pub(in crate::inbound::graphql) fn with_costs(self, costs: FieldCosts) -> Self {
        Self { costs, ..self }
    }

    /// The costs of the fields.
    pub(in crate::inbound::graphql) const fn costs(&self) -> &FieldCosts {
        &self.costs
    }

    /// The root type of an operation.
    pub(in crate::inbound::graphql) fn root(&self, kind: OperationType) -> Option<&Name> {
        self.outputs.root(kind)
    }

    /// The field of a type.
    pub(in crate::inbound::graphql) fn output(&self, parent: &Name, field: &Name) -> Option<&OutputField> {
        self.outputs.get(parent)?.fields.get(field)
    }

    /// The object types that a value of a type can have.
    pub(in crate::inbound::graphql) fn objects_of(&self, name: &Name) -> Vec<&Name> {
        self.outputs.objects_of(name)
    }

    /// Whether an object type is a type, or one of its members or implementations.
    pub(in crate::inbound::graphql) fn is_a(&self, object: &Name, condition: &Name) -> bool {
        self.outputs.is_a(object, condition)
    }

    /// Whether a type is a union.
    pub(in crate::inbound::graphql) fn is_union(&self, name: &Name) -> bool {
        self.outputs.get(name).is_some_and(OutputType::is_union)
    }

    /// Every composite type with its name, in no order.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn outputs(&self) -> impl Iterator<Item = (&Name, &OutputType)> {
        self.outputs.iter()
    }
}
