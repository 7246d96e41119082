//! The fields of the object, interface and union types of a schema, with their types and arguments.

use std::collections::HashMap;

use async_graphql::parser::types::{
    FieldDefinition, OperationType, Type, TypeDefinition, TypeKind, TypeSystemDefinition,
};
use async_graphql::{Name, Positioned};

use super::input::{InputField, fields, innermost};

/// The selectable types by name, and the arguments of directives.
#[derive(Debug, Default)]
pub(in crate::inbound::graphql) struct Outputs {
    types: HashMap<Name, OutputType>,
    directives: HashMap<Name, Vec<InputField>>,
    query: Option<Name>,
    mutation: Option<Name>,
    subscription: Option<Name>,
}

/// One composite type.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct OutputType {
    pub(in crate::inbound::graphql) fields: HashMap<Name, OutputField>,
    /// The members of a union.
    members: Vec<Name>,
    implements: Vec<Name>,
    /// Whether the type of a value is another one: true for an interface or a union.
    pub(in crate::inbound::graphql) is_abstract: bool,
}

/// One field of a composite type.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct OutputField {
    pub(in crate::inbound::graphql) of: Type,
    pub(super) arguments: Vec<InputField>,
}

impl Outputs {
    pub(super) fn read(&mut self, definition: &TypeSystemDefinition) {
        match definition {
            TypeSystemDefinition::Schema(schema) => {
                let name = |name: &Option<Positioned<Name>>| name.as_ref().map(|name| name.node.clone());
                self.query = name(&schema.node.query);
                self.mutation = name(&schema.node.mutation);
                self.subscription = name(&schema.node.subscription);
            }
            TypeSystemDefinition::Directive(directive) => {
                let arguments = fields(&directive.node.arguments);
                self.directives.insert(directive.node.name.node.clone(), arguments);
            }
            TypeSystemDefinition::Type(definition) => {
                if let Some(of) = output_type(&definition.node) {
                    self.types.insert(definition.node.name.node.clone(), of);
                }
            }
        }
    }

    /// The root type of an operation.
    pub(in crate::inbound::graphql) fn root(&self, kind: OperationType) -> Option<&Name> {
        match kind {
            OperationType::Query => self.query.as_ref(),
            OperationType::Mutation => self.mutation.as_ref(),
            OperationType::Subscription => self.subscription.as_ref(),
        }
    }

    pub(in crate::inbound::graphql) fn get(&self, name: &Name) -> Option<&OutputType> {
        self.types.get(name)
    }

    /// The object types that a value of a type can have.
    pub(super) fn objects_of(&self, name: &Name) -> Vec<&Name> {
        let is_one = |(candidate, of): &(&Name, &OutputType)| !of.is_abstract && self.is_a(candidate, name);
        self.types.iter().filter(is_one).map(|(name, _)| name).collect()
    }

    /// Whether an object type is a type, or one of its members or implementations.
    pub(super) fn is_a(&self, object: &Name, condition: &Name) -> bool {
        object == condition
            || self.types.get(object).is_some_and(|of| of.implements.contains(condition))
            || self.types.get(condition).is_some_and(|of| of.members.contains(object))
    }

    /// Every composite type with its name, in no order.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn iter(&self) -> impl Iterator<Item = (&Name, &OutputType)> {
        self.types.iter()
    }

    pub(super) fn directive(&self, name: &Name) -> Option<&[InputField]> {
        self.directives.get(name).map(Vec::as_slice)
    }

    /// The type that a fragment must be on to select a field that an abstract type does not have, but a type of its
    /// values has: an interface before an object.
    pub(super) fn fragment_for(&self, parent: &Name, field: &Name) -> Option<&Name> {
        let of = self.types.get(parent).filter(|of| of.is_abstract && !of.fields.contains_key(field))?;
        let related = |name: &Name, candidate: &OutputType| {
            candidate.implements.contains(parent)
                || of.members.contains(name)
                || of.members.iter().any(|member| {
                    self.types.get(member).is_some_and(|member| member.implements.contains(name))
                })
        };
        let candidates = self.types.iter().filter(|(name, candidate)| {
            candidate.fields.contains_key(field) && *name != parent && related(name, candidate)
        });
        candidates.min_by_key(|(name, candidate)| (!candidate.is_abstract, *name)).map(|(name, _)| name)
    }
}

impl OutputType {
    /// Whether it is a union.
    pub(super) const fn is_union(&self) -> bool {
        !self.members.is_empty()
    }
}

impl OutputField {
    /// Whether it has an argument of this name.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn takes(&self, argument: &str) -> bool {
        self.arguments.iter().any(|field| field.name == argument)
    }

    /// The name of the type without its lists.
    pub(in crate::inbound::graphql) fn innermost(&self) -> &Name {
        innermost(&self.of)
    }
}

fn output_type(definition: &TypeDefinition) -> Option<OutputType> {
    let names = |names: &[Positioned<Name>]| names.iter().map(|name| name.node.clone()).collect();
    let selectable = |fields: &[Positioned<FieldDefinition>]| fields.iter().map(output_field).collect();
    match &definition.kind {
        TypeKind::Object(of) => Some(OutputType {
            fields: selectable(&of.fields),
            members: Vec::new(),
            implements: names(&of.implements),
            is_abstract: false,
        }),
        TypeKind::Interface(of) => Some(OutputType {
            fields: selectable(&of.fields),
            members: Vec::new(),
            implements: names(&of.implements),
            is_abstract: true,
        }),
        TypeKind::Union(of) => Some(OutputType {
            fields: HashMap::new(),
            members: names(&of.members),
            implements: Vec::new(),
            is_abstract: true,
        }),
        TypeKind::Scalar | TypeKind::Enum(_) | TypeKind::InputObject(_) => None,
    }
}

fn output_field(field: &Positioned<FieldDefinition>) -> (Name, OutputField) {
    let FieldDefinition { name, ty, arguments, .. } = &field.node;
    (name.node.clone(), OutputField { of: ty.node.clone(), arguments: fields(arguments) })
}
