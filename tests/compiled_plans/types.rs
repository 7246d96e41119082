//! The types of the schema, read from its text, as the generator of documents needs them.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, FieldDefinition, InputValueDefinition, Type, TypeKind, TypeSystemDefinition,
};
use jobgate::inbound::graphql::schema;

/// The types by their names.
pub(super) struct SchemaTypes {
    composites: BTreeMap<String, CompositeType>,
    pub(super) inputs: BTreeMap<String, InputObject>,
    pub(super) enums: BTreeMap<String, Vec<String>>,
}

/// An object, an interface or a union.
pub(super) struct CompositeType {
    pub(super) fields: Vec<OutputFieldType>,
    /// The objects that a value of it can be.
    objects: BTreeSet<String>,
    is_union: bool,
}

/// A field of an object or interface.
#[derive(Clone)]
pub(super) struct OutputFieldType {
    pub(super) name: String,
    /// The name of its type, without lists and `!`.
    pub(super) of: String,
    pub(super) arguments: Vec<InputPosition>,
}

/// An input object.
pub(super) struct InputObject {
    pub(super) fields: Vec<InputPosition>,
    pub(super) one_of: bool,
}

/// An argument, or a field of an input object.
#[derive(Clone)]
pub(super) struct InputPosition {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) has_default: bool,
}

impl SchemaTypes {
    pub(super) fn read() -> Self {
        let document = parse_schema(schema::sdl()).unwrap();
        let mut types = Self { composites: BTreeMap::new(), inputs: BTreeMap::new(), enums: BTreeMap::new() };
        let mut implements: Vec<(String, String)> = Vec::new();
        for definition in document.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let definition = definition.node;
            let name = definition.name.node.to_string();
            let is_union = matches!(definition.kind, TypeKind::Union(_));
            let (described, objects) = match definition.kind {
                TypeKind::Object(object) => {
                    let interfaces = object.implements.iter();
                    implements.extend(interfaces.map(|one| (one.node.to_string(), name.clone())));
                    (object.fields, BTreeSet::from([name.clone()]))
                }
                TypeKind::Interface(interface) => (interface.fields, BTreeSet::new()),
                TypeKind::Union(union) => {
                    (Vec::new(), union.members.iter().map(|one| one.node.to_string()).collect())
                }
                TypeKind::Enum(values) => {
                    let values = values.values.iter().map(|one| one.node.value.node.to_string());
                    types.enums.insert(name, values.collect());
                    continue;
                }
                TypeKind::InputObject(input) => {
                    let one_of = definition.directives.iter().any(|one| one.node.name.node == "oneOf");
                    let fields = input.fields.iter().map(|field| position(&field.node)).collect();
                    types.inputs.insert(name, InputObject { fields, one_of });
                    continue;
                }
                TypeKind::Scalar => continue,
            };
            let described = described.iter().map(|field| output(&field.node)).collect();
            types.composites.insert(name, CompositeType { fields: described, objects, is_union });
        }
        for (interface, object) in implements {
            types.composites.get_mut(&interface).unwrap().objects.insert(object);
        }
        types
    }

    /// The composite type of a name; `None` for a scalar or an enum.
    pub(super) fn composite(&self, name: &str) -> Option<&CompositeType> {
        self.composites.get(name)
    }

    /// Whether a fragment on a type can be spread in a selection on another.
    ///
    /// A fragment on a union elsewhere than on the union itself is not generated: the engine omits its fields.
    pub(super) fn can_spread(&self, on: &str, condition: &str) -> bool {
        match (self.composite(on), self.composite(condition)) {
            (Some(of), Some(spread)) => {
                !of.objects.is_disjoint(&spread.objects) && (on == condition || !spread.is_union)
            }
            (None, _) | (_, None) => false,
        }
    }

    /// The types of the fragments that can be spread in a selection on a type.
    pub(super) fn conditions(&self, on: &str) -> Vec<&str> {
        let names = self.composites.keys().map(String::as_str);
        names.filter(|condition| self.can_spread(on, condition)).collect()
    }
}

fn output(field: &FieldDefinition) -> OutputFieldType {
    OutputFieldType {
        name: field.name.node.to_string(),
        of: innermost(&field.ty.node).to_owned(),
        arguments: field.arguments.iter().map(|argument| position(&argument.node)).collect(),
    }
}

fn position(value: &InputValueDefinition) -> InputPosition {
    InputPosition {
        name: value.name.node.to_string(),
        ty: value.ty.node.clone(),
        has_default: value.default_value.is_some(),
    }
}

/// The name of a type, without lists and `!`.
pub(super) fn innermost(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(item) => innermost(item),
    }
}
