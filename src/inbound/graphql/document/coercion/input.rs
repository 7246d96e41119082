//! One input type of a schema, and its fields.

use std::collections::HashSet;

use async_graphql::parser::types::{BaseType, InputValueDefinition, Type, TypeDefinition, TypeKind};
use async_graphql::{Name, Positioned, Value};

/// Parses the text of a scalar, or returns what it must be: `must be …`.
pub type TextScalar = fn(&str) -> Result<(), String>;

/// An input type.
#[derive(Debug)]
pub(super) enum InputType {
    /// A scalar of the specification: whether a value is one, and the part of its form that its name does not express.
    BuiltIn { fits: fn(&Value) -> bool, form: &'static str },
    /// A custom scalar that is written as a string.
    Text(TextScalar),
    /// An unknown scalar: it accepts any value.
    Opaque,
    /// The names of an enum.
    Enum(HashSet<Name>),
    /// An input object.
    Object { fields: Vec<InputField>, one_of: bool },
}

/// A field of an input object, or an argument.
#[derive(Debug)]
pub(super) struct InputField {
    pub(super) name: Name,
    pub(super) of: Type,
    /// Whether a value is required: not nullable, and without a default.
    pub(super) required: bool,
}

impl InputField {
    /// Whether the schema has a default for a value that must not be null.
    pub(super) const fn has_default(&self) -> bool {
        !self.of.nullable && !self.required
    }
}

/// The scalars of the specification.
pub(super) fn built_in() -> [(Name, InputType); 5] {
    let scalar = |name, fits, form| (Name::new(name), InputType::BuiltIn { fits, form });
    [
        scalar("Int", is_int, ", a 32-bit whole number without a fraction"),
        scalar("Float", |value| matches!(value, Value::Number(number) if number.as_f64().is_some()), ""),
        scalar("String", |value| matches!(value, Value::String(_)), ""),
        scalar("Boolean", |value| matches!(value, Value::Boolean(_)), ""),
        scalar("ID", is_id, ", given as a string or a whole number"),
    ]
}

/// `1.0` is not an integer: the specification leaves it open, and the engine rejects it.
fn is_int(value: &Value) -> bool {
    matches!(value, Value::Number(number) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()))
}

fn is_id(value: &Value) -> bool {
    matches!(value, Value::String(_)) || matches!(value, Value::Number(number) if number.is_i64())
}

/// The name of a type without its lists.
pub(super) fn innermost(of: &Type) -> &Name {
    match &of.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => innermost(item),
    }
}

/// A definition as an input type, if it is one.
pub(super) fn input_type(definition: &TypeDefinition, scalars: &[(&str, TextScalar)]) -> Option<InputType> {
    match &definition.kind {
        TypeKind::Scalar => {
            let known = scalars.iter().find(|(name, _)| *name == definition.name.node.as_str());
            Some(known.map_or(InputType::Opaque, |(_, read)| InputType::Text(*read)))
        }
        TypeKind::Enum(of) => {
            Some(InputType::Enum(of.values.iter().map(|value| value.node.value.node.clone()).collect()))
        }
        TypeKind::InputObject(of) => {
            let one_of = definition.directives.iter().any(|directive| directive.node.name.node == "oneOf");
            Some(InputType::Object { fields: fields(&of.fields), one_of })
        }
        TypeKind::Object(_) | TypeKind::Interface(_) | TypeKind::Union(_) => None,
    }
}

/// The arguments of a field or a directive, or the fields of an input object.
pub(super) fn fields(definitions: &[Positioned<InputValueDefinition>]) -> Vec<InputField> {
    let fields = definitions.iter().map(|field| {
        let of = field.node.ty.node.clone();
        let required = !of.nullable && field.node.default_value.is_none();
        InputField { name: field.node.name.node.clone(), of, required }
    });
    fields.collect()
}
