//! The variables of a request: whether each has a value that coerces to its declared type.

use async_graphql::parser::types::{BaseType, ExecutableDocument, OperationDefinition};
use async_graphql::{Value, Variables};

use super::input::innermost;
use super::input_types::InputTypes;
use super::path::ValuePath;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

impl InputTypes {
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
