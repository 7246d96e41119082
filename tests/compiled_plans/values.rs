//! Values of arguments and variables, valid for their type with few exceptions.

use std::fmt;

use async_graphql::parser::types::{BaseType, Type};
use fastrand::Rng;
use serde_json::{Value, json};

use super::types::SchemaTypes;

/// The jobs that documents refer to.
pub(super) struct References {
    /// Sources and external ids.
    pub(super) external: Vec<(String, String)>,
    pub(super) node_ids: Vec<String>,
}

/// A value in a document, or of a variable.
#[derive(Clone)]
pub(super) enum InputValue {
    Variable(String),
    Enum(String),
    /// Null, or the value of a scalar.
    Scalar(Value),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// Chooses a variable for a position of this type and name, or none for a literal. The last argument says whether the
/// type of the variable must not be nullable.
pub(super) type PickVariable<'a> = dyn FnMut(&mut Rng, &Type, &str, bool) -> Option<String> + 'a;

/// What values are generated from.
pub(super) struct Values<'a> {
    pub(super) types: &'a SchemaTypes,
    pub(super) references: &'a References,
}

impl InputValue {
    pub(super) const NULL: Self = Self::Scalar(Value::Null);

    /// The value as a variable has it.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Variable(_) => Value::Null,
            Self::Enum(name) => json!(name),
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
            }
        }
    }
}

/// As a literal of a document.
impl fmt::Display for InputValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "${name}"),
            Self::Enum(name) => f.write_str(name),
            Self::Scalar(value) => write!(f, "{value}"),
            Self::List(items) => {
                f.write_str("[")?;
                for item in items {
                    write!(f, "{item} ")?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (name, value) in fields {
                    write!(f, "{name}: {value} ")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl Values<'_> {
    /// A value of a type, at the argument or input field of a name, without variables.
    pub(super) fn constant(&self, rng: &mut Rng, ty: &Type, name: &str) -> InputValue {
        self.value(rng, ty, name, &mut |_, _, _, _| None)
    }

    /// The same, with variables in it.
    pub(super) fn value(
        &self,
        rng: &mut Rng,
        ty: &Type,
        name: &str,
        variable: &mut PickVariable<'_>,
    ) -> InputValue {
        if let Some(name) = variable(rng, ty, name, false) {
            return InputValue::Variable(name);
        }
        self.literal(rng, ty, name, variable)
    }

    fn literal(&self, rng: &mut Rng, ty: &Type, name: &str, variable: &mut PickVariable<'_>) -> InputValue {
        if ty.nullable && rng.u8(..8) == 0 {
            return InputValue::NULL;
        }
        match &ty.base {
            // a single value stands for a list of it
            BaseType::List(item) if rng.u8(..16) == 0 => {
                self.literal(rng, item, name, &mut |_, _, _, _| None)
            }
            BaseType::List(item) => {
                let length = if rng.u8(..40) == 0 { 0 } else { rng.usize(1..=5) };
                InputValue::List((0..length).map(|_| self.value(rng, item, name, variable)).collect())
            }
            BaseType::Named(of) => match self.types.inputs.get(of.as_str()) {
                Some(_) if of == "ExternalJobRef" => self.external(rng, variable),
                Some(object) if object.one_of => {
                    let field = &object.fields[rng.usize(..object.fields.len())];
                    let required = Type { base: field.ty.base.clone(), nullable: false };
                    let value = match variable(rng, &required, &field.name, true) {
                        Some(name) => InputValue::Variable(name),
                        None => self.literal(rng, &required, &field.name, variable),
                    };
                    InputValue::Object(vec![(field.name.clone(), value)])
                }
                Some(object) => {
                    let mut fields = Vec::new();
                    for field in &object.fields {
                        if (!field.ty.nullable && !field.has_default) || rng.u8(..3) == 0 {
                            let value = self.value(rng, &field.ty, &field.name, variable);
                            fields.push((field.name.clone(), value));
                        }
                    }
                    rng.shuffle(&mut fields);
                    InputValue::Object(fields)
                }
                None => match self.types.enums.get(of.as_str()) {
                    Some(names) => InputValue::Enum(names[rng.usize(..names.len())].clone()),
                    None => InputValue::Scalar(self.scalar(rng, of, name)),
                },
            },
        }
    }

    fn external(&self, rng: &mut Rng, variable: &mut PickVariable<'_>) -> InputValue {
        let (source, id) = &self.references.external[rng.usize(..self.references.external.len())];
        let text = Type::new("String!").unwrap();
        let mut field = |rng: &mut Rng, name: &str, value: &str| match variable(rng, &text, name, false) {
            Some(variable) => (name.to_owned(), InputValue::Variable(variable)),
            None => (name.to_owned(), InputValue::Scalar(json!(value))),
        };
        InputValue::Object(vec![field(rng, "externalId", id), field(rng, "source", source)])
    }

    fn scalar(&self, rng: &mut Rng, of: &str, name: &str) -> Value {
        let References { external, node_ids } = self.references;
        let one = |rng: &mut Rng, texts: &[&str]| json!(texts[rng.usize(..texts.len())]);
        match (of, name) {
            ("Boolean", _) => json!(rng.bool()),
            ("Int", _) if rng.u8(..40) == 0 => json!([0, -1, 101, i32::MAX][rng.usize(..4)]),
            ("Int", _) => json!(rng.u8(1..=8)),
            // a wait would move the clock
            ("Duration", "timeout") => json!("0s"),
            ("Duration", _) => one(rng, &["0s", "1s", "500ms", "2h", "30d"]),
            ("DateTime", _) => {
                one(rng, &["1970-01-01T00:00:00Z", "1970-01-01T02:03:00.5+02:00", "2026-11-21T19:10:00Z"])
            }
            ("ID", _) => json!(node_ids[rng.usize(..node_ids.len())]),
            ("String", "after") if rng.u8(..20) == 0 => json!("no cursor"),
            ("String", "after") => json!(node_ids[rng.usize(..node_ids.len() / 2)]),
            ("String", "source" | "sources") => json!(external[rng.usize(..external.len())].0),
            ("String", "externalId") => json!(external[rng.usize(..external.len())].1),
            ("String", "name") => one(rng, &["team", "tier", "Job", "JobResult"]),
            ("String", "value") => one(rng, &["blue", "red", "\u{e9}\"\\"]),
            (_, _) => one(rng, &["", "text", "\"\\\n\u{1}"]),
        }
    }
}
