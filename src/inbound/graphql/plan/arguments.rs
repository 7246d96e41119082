//! The arguments of a root field, with slots for the variables of a request.

use std::sync::Arc;

use async_graphql::parser::types::{Field, OperationDefinition};
use async_graphql::{InputType, Name, Value as Constant, Variables};
use async_graphql_value::Value;

use super::compile::{Compiler, NotCovered};

/// The variables that an operation declares, with their defaults.
#[derive(Clone, Debug)]
pub(super) struct DeclaredVariables(Arc<[(Name, Option<Constant>)]>);

/// The arguments of one root field.
#[derive(Debug)]
pub(super) struct RootArguments {
    given: Vec<(Name, Value)>,
    declared: DeclaredVariables,
}

impl DeclaredVariables {
    /// Of an operation.
    pub(super) fn of(operation: &OperationDefinition) -> Self {
        let declared = operation.variable_definitions.iter().map(|one| {
            let default = one.node.default_value.as_ref().map(|default| default.node.clone());
            (one.node.name.node.clone(), default)
        });
        Self(declared.collect())
    }
}

impl RootArguments {
    /// Of a field.
    ///
    /// # Errors
    /// Returns an error if the plan is too large with them.
    pub(super) fn of(
        field: &Field,
        declared: &DeclaredVariables,
        compiler: &mut Compiler<'_>,
    ) -> Result<Self, NotCovered> {
        let mut given = Vec::new();
        for (name, value) in &field.arguments {
            compiler.charge(value.node.to_string().len())?;
            given.push((name.node.clone(), value.node.clone()));
        }
        Ok(Self { given, declared: declared.clone() })
    }

    /// Whether the document has the argument.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(known, _)| known == name)
    }

    /// Parses an argument as the engine does; `None` if it is not valid.
    pub(super) fn get<T: InputType>(&self, variables: &Variables, name: &str) -> Option<T> {
        let value = self.given.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        T::parse(value.and_then(|value| self.constant(variables, value))).ok()
    }

    /// Replaces the variables of a value; `None` if it is a variable without a value.
    fn constant(&self, variables: &Variables, value: &Value) -> Option<Constant> {
        Some(match value {
            Value::Variable(name) => match variables.get(name) {
                Some(value) => value.clone(),
                None => self.declared.0.iter().find(|(known, _)| known == name)?.1.clone()?,
            },
            Value::Null => Constant::Null,
            Value::Number(number) => Constant::Number(number.clone()),
            Value::String(text) => Constant::String(text.clone()),
            Value::Boolean(value) => Constant::Boolean(*value),
            Value::Binary(bytes) => Constant::Binary(bytes.clone()),
            Value::Enum(name) => Constant::Enum(name.clone()),
            // an item without a value is null, a field without one is absent
            Value::List(items) => {
                let item = |item| self.constant(variables, item).unwrap_or(Constant::Null);
                Constant::List(items.iter().map(item).collect())
            }
            Value::Object(fields) => {
                let field =
                    |(name, value): (&Name, &Value)| Some((name.clone(), self.constant(variables, value)?));
                Constant::Object(fields.iter().filter_map(field).collect())
            }
        })
    }
}
