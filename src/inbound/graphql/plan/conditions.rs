//! The variables of `@skip` and `@include`: a plan is compiled for their values, so that it has no condition left.

use std::collections::BTreeMap;

use async_graphql::parser::types::{
    Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Value as Constant, Variables};
use async_graphql_value::Value;

/// The values of the variables that a document uses in directives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct Conditions(BTreeMap<Name, bool>);

/// The names of the variables that a document uses in directives.
#[derive(Debug, Default)]
pub(in crate::inbound::graphql) struct ConditionNames(Vec<Name>);

impl ConditionNames {
    /// Of every operation and fragment.
    pub(in crate::inbound::graphql) fn of(document: &ExecutableDocument) -> Self {
        let mut names = Self::default();
        for (_, operation) in document.operations.iter() {
            names.set(&operation.node.selection_set.node);
        }
        for fragment in document.fragments.values() {
            names.set(&fragment.node.selection_set.node);
        }
        names
    }

    fn set(&mut self, set: &SelectionSet) {
        for selection in &set.items {
            for directive in selection.node.directives() {
                if let Some(Value::Variable(name)) = condition(&directive.node)
                    && !self.0.contains(name)
                {
                    self.0.push(name.clone());
                }
            }
            match &selection.node {
                Selection::Field(field) => self.set(&field.node.selection_set.node),
                Selection::InlineFragment(inline) => self.set(&inline.node.selection_set.node),
                Selection::FragmentSpread(_) => {}
            }
        }
    }

    /// Their values in a request; `None` if one that the operation declares has none.
    pub(in crate::inbound::graphql) fn values(
        &self,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Option<Conditions> {
        let mut values = BTreeMap::new();
        for name in &self.0 {
            match variable(operation, variables, name) {
                Some(Constant::Boolean(value)) => _ = values.insert(name.clone(), *value),
                // of another operation
                None if !operation.variable_definitions.iter().any(|one| one.node.name.node == *name) => {}
                Some(_) | None => return None,
            }
        }
        Some(Conditions(values))
    }
}

impl Conditions {
    /// Whether a selection with these directives is in the answer; `None` if one cannot be evaluated.
    pub(in crate::inbound::graphql) fn includes(&self, directives: &[Positioned<Directive>]) -> Option<bool> {
        let mut included = true;
        for directive in directives {
            let value = match condition(&directive.node)? {
                Value::Boolean(value) => *value,
                Value::Variable(name) => *self.0.get(name)?,
                Value::Null
                | Value::Number(_)
                | Value::String(_)
                | Value::Binary(_)
                | Value::Enum(_)
                | Value::List(_)
                | Value::Object(_) => return None,
            };
            included &= match directive.node.name.node.as_str() {
                "include" => value,
                "skip" => !value,
                _ => return None,
            };
        }
        Some(included)
    }
}

/// The value of a variable in a request: given, or the default of its declaration.
fn variable<'a>(
    operation: &'a OperationDefinition,
    variables: &'a Variables,
    name: &str,
) -> Option<&'a Constant> {
    let declared = operation.variable_definitions.iter().find(|one| one.node.name.node == name)?;
    variables.get(name).or_else(|| declared.node.default_value.as_ref().map(|default| &default.node))
}

fn condition(directive: &Directive) -> Option<&Value> {
    directive.get_argument("if").map(|value| &value.node)
}
