//! Validates that the variables of a request coerce to their declared types, before anything executes (GraphQL,
//! "Coercing Variable Values"). The engine finds most errors only when a resolver reads the value, after earlier
//! mutations have run. Values in the document and the positions of variables are validated in `position`, since the
//! engine's validation misses some errors of both.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{
    BaseType, ExecutableDocument, InputValueDefinition, OperationDefinition, OperationType, Type,
    TypeDefinition, TypeKind, TypeSystemDefinition,
};
use async_graphql::parser::{self, parse_schema};
use async_graphql::{Name, Positioned, Value, Variables};

use crate::inbound::http::error::{HttpRefusal, RefusalKind};

mod output;
mod path;
mod position;
mod value;

pub(in crate::inbound::graphql) use output::OutputField;
use output::Outputs;
use path::ValuePath;

/// Parses the text of a scalar, or returns what it must be: `must be …`.
pub type TextScalar = fn(&str) -> Result<(), String>;

/// The input types of a schema, by name, and where they are used: the arguments of its fields and directives.
#[derive(Debug)]
pub struct InputTypes {
    types: HashMap<Name, InputType>,
    outputs: Outputs,
}

#[derive(Debug)]
enum InputType {
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

#[derive(Debug)]
struct InputField {
    name: Name,
    of: Type,
    /// Whether a value is required: not nullable, and without a default.
    required: bool,
}

impl InputField {
    /// Whether the schema has a default for a value that must not be null.
    const fn has_default(&self) -> bool {
        !self.of.nullable && !self.required
    }
}

impl InputTypes {
    /// Parses the input types of a schema from its text. `scalars` are its custom scalars that are strings of a certain
    /// form; any other accepts every value.
    ///
    /// # Errors
    /// Returns an error if the text is not a schema.
    pub fn from_sdl(sdl: &str, scalars: &[(&str, TextScalar)]) -> Result<Self, parser::Error> {
        let mut types: HashMap<Name, InputType> = value::built_in().into_iter().collect();
        let mut outputs = Outputs::default();
        for definition in parse_schema(sdl)?.definitions {
            outputs.read(&definition);
            if let TypeSystemDefinition::Type(definition) = definition
                && let Some(of) = input_type(&definition.node, scalars)
            {
                types.insert(definition.node.name.node, of);
            }
        }
        Ok(Self { types, outputs })
    }

    /// The root type of an operation.
    pub(in crate::inbound::graphql) fn root(&self, kind: OperationType) -> Option<&Name> {
        self.outputs.root(kind)
    }

    /// The field of a type.
    pub(in crate::inbound::graphql) fn output(&self, parent: &Name, field: &Name) -> Option<&OutputField> {
        self.outputs.get(parent)?.fields.get(field)
    }

    /// Every composite type with its name, in no order.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn outputs(&self) -> impl Iterator<Item = (&Name, &output::OutputType)> {
        self.outputs.iter()
    }

    /// Checks that no operation of a document declares a variable as a list of a type that is not an input type. Any
    /// other error of a declaration is left to validation, which panics at this one (async-graphql 8.0.0-rc.5, where
    /// such a list has a default).
    ///
    /// # Errors
    /// Returns the first such variable.
    pub(in crate::inbound::graphql) fn check_declared(
        &self,
        document: &ExecutableDocument,
    ) -> Result<(), HttpRefusal> {
        let definitions = document.operations.iter().flat_map(|(_, found)| &found.node.variable_definitions);
        for definition in definitions {
            let (name, of) = (&definition.node.name.node, &definition.node.var_type.node);
            if let BaseType::List(item) = &of.base
                && !self.types.contains_key(innermost(item))
            {
                let message = format!(
                    "variable \"${name}\" of type \"{of}\" is a list of no input type; correct its type"
                );
                return Err(HttpRefusal::new(RefusalKind::DocumentInvalid, message).at([definition.pos]));
            }
        }
        Ok(())
    }

    /// Checks that each required variable of an operation has a value, and that each value, defaults included, coerces
    /// to the declared type. Undeclared variables are ignored.
    ///
    /// # Errors
    /// Returns the first that does not. The message contains the path and the expected type, and no value.
    pub(in crate::inbound::graphql) fn check(
        &self,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<(), HttpRefusal> {
        for definition in &operation.variable_definitions {
            let (name, of) = (&definition.node.name.node, &definition.node.var_type.node);
            let default = definition.node.default_value.as_ref().map(|default| &default.node);
            let refused = |kind, message: String| {
                Err(HttpRefusal::new(kind, message).at([definition.pos]).with("variable", name.as_str()))
            };
            if let Some(default) = default
                && let Err(fault) = self.coerces(default, of, &ValuePath::Default(name))
            {
                return refused(RefusalKind::DocumentInvalid, fault);
            }
            let fault = match variables.get(name) {
                None if of.nullable || default.is_some() => continue,
                Some(Value::Null) if of.nullable => continue,
                None | Some(Value::Null) => {
                    format!("variable \"${name}\" of type \"{of}\" has no value; add it to variables")
                }
                Some(value) => match self.coerces(value, of, &ValuePath::Variable(name)) {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
            };
            return refused(RefusalKind::BadInput, fault);
        }
        Ok(())
    }
}

fn innermost(of: &Type) -> &Name {
    match &of.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => innermost(item),
    }
}

/// A definition as an input type, if it is one.
fn input_type(definition: &TypeDefinition, scalars: &[(&str, TextScalar)]) -> Option<InputType> {
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

fn fields(definitions: &[Positioned<InputValueDefinition>]) -> Vec<InputField> {
    let fields = definitions.iter().map(|field| {
        let of = field.node.ty.node.clone();
        let required = !of.nullable && field.node.default_value.is_none();
        InputField { name: field.node.name.node.clone(), of, required }
    });
    fields.collect()
}

#[cfg(test)]
mod tests;
