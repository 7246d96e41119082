//! Computes the upper bound of the upstream calls of an operation. Never an estimate: what the caches save is not known
//! before execution.

use std::convert::Infallible;

use async_graphql::parser::types::{ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet};
use async_graphql::{Name, Value, Variables};

use super::field_cost::{FieldCost, FieldCosts, MOST_PAGE, MOST_REFS};

/// Adds up an operation. Recursion and work are bounded by the walk that has checked the document.
pub(super) fn of(
    costs: &FieldCosts,
    document: &ExecutableDocument,
    operation: &OperationDefinition,
    variables: &Variables,
) -> u64 {
    QueryCost { costs, document, arguments: FieldArguments { operation, variables } }.set(
        &operation.selection_set.node,
        1,
        true,
    )
}

/// The arguments of the fields of an operation.
#[derive(Clone, Copy)]
pub(super) struct FieldArguments<'a> {
    pub(super) operation: &'a OperationDefinition,
    pub(super) variables: &'a Variables,
}

/// The form of an argument.
enum FieldArgument<'a> {
    Absent,
    Literal(Value),
    Variable(Option<&'a Value>),
}

struct QueryCost<'a> {
    costs: &'a FieldCosts,
    document: &'a ExecutableDocument,
    arguments: FieldArguments<'a>,
}

impl QueryCost<'_> {
    fn set(&self, set: &SelectionSet, jobs: u64, at_root: bool) -> u64 {
        set.items.iter().fold(0, |sum, selection| {
            sum.saturating_add(match &selection.node {
                Selection::Field(field) => self.field(&field.node, jobs, at_root),
                Selection::InlineFragment(inline) => self.set(&inline.node.selection_set.node, jobs, at_root),
                Selection::FragmentSpread(spread) => self
                    .document
                    .fragments
                    .get(&spread.node.fragment_name.node)
                    .map_or(0, |fragment| self.set(&fragment.node.selection_set.node, jobs, at_root)),
            })
        })
    }

    fn field(&self, field: &Field, jobs: u64, at_root: bool) -> u64 {
        let (calls, below) = match self.costs.of(field.name.node.as_str(), at_root) {
            FieldCost::One => (1, 1),
            FieldCost::EachOf(argument) => {
                let items = self.arguments.items(field, argument);
                (items, items)
            }
            FieldCost::Page(argument) => (0, self.arguments.page(field, argument)),
            FieldCost::Most => (MOST_REFS, MOST_REFS),
            FieldCost::EachJob => (jobs, jobs),
            FieldCost::Free | FieldCost::List(_) | FieldCost::PageItems => (0, jobs),
        };
        calls.saturating_add(self.set(&field.selection_set.node, below, false))
    }
}

impl FieldArguments<'_> {
    /// The length of a list argument. A single value counts as a list of one, as in the specification.
    pub(super) fn items(&self, field: &Field, argument: &str) -> u64 {
        match self.argument(field, argument) {
            FieldArgument::Absent | FieldArgument::Literal(Value::Null) => 0,
            FieldArgument::Variable(None | Some(Value::Null)) => MOST_REFS,
            FieldArgument::Literal(Value::List(items)) => items.len() as u64,
            FieldArgument::Variable(Some(Value::List(items))) => items.len() as u64,
            FieldArgument::Literal(_) | FieldArgument::Variable(Some(_)) => 1,
        }
    }

    /// The size of a page.
    pub(super) fn page(&self, field: &Field, argument: &str) -> u64 {
        let number = match self.argument(field, argument) {
            FieldArgument::Literal(Value::Number(number)) => number.as_u64(),
            FieldArgument::Variable(Some(Value::Number(number))) => number.as_u64(),
            FieldArgument::Absent | FieldArgument::Literal(_) | FieldArgument::Variable(_) => None,
        };
        number.unwrap_or(MOST_PAGE)
    }

    /// Reads an argument without copying the value of a variable.
    fn argument(&self, field: &Field, name: &str) -> FieldArgument<'_> {
        let Some(value) = field.get_argument(name) else { return FieldArgument::Absent };
        let mut variable: Option<Name> = None;
        let Ok(literal) = value.node.clone().into_const_with(|name| {
            variable = Some(name);
            Ok::<_, Infallible>(Value::Null)
        });
        match (literal, variable) {
            (Value::Null, Some(name)) => FieldArgument::Variable(self.variable(&name)),
            (literal, _) => FieldArgument::Literal(literal),
        }
    }

    fn variable(&self, name: &str) -> Option<&Value> {
        self.variables.get(name).or_else(|| {
            let definition =
                self.operation.variable_definitions.iter().find(|def| def.node.name.node == name)?;
            definition.node.default_value.as_ref().map(|value| &value.node)
        })
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::inbound::graphql::schema::costs;

    #[test]
    fn cost_is_the_maximum_number_of_upstream_calls() {
        let variables =
            Variables::from_json(json!({ "three": [1, 2, 3], "one": { "id": "x" }, "n": 7, "null": null }));
        for (text, calls) in [
            ("{job(ref:{id:1}){state}}", 1),
            ("{a:job(ref:{id:1}){x} b:node(id:1){x} jobAwait(ref:{id:1}){x} sources{name}}", 3),
            ("{jobs(refs:[{id:1},{id:2}]){...on S{rows(first:1){x}}}}", 4),
            (
                "query($three:X){nodes(ids:$three){...F}} fragment F on S{rows(first:1){x} more:rows(first:1){x}}",
                9,
            ),
            ("query($one:X){jobs(refs:$one){x}}", 1),
            ("query($unknown:X){jobs(refs:$unknown){rows(first:1){x}}}", 400),
            ("query($null:X){jobs(refs:$null){x}}", 200),
            ("query($d:X=[1,2]){jobs(refs:$d){x}}", 2),
            ("{...R} fragment R on Query{jobs(refs:[1,2,3]){x}}", 3),
            ("{jobList(first:50){nodes{x}}}", 0),
            ("{jobList(first:50){nodes{...on S{rows(first:1){x}}}}}", 50),
            ("query($n:Int!){jobList(first:$n){edges{node{...on S{rows(first:1){x}}}}}}", 7),
            ("query($m:Int!){jobList(first:$m){nodes{...on S{rows(first:1){x}}}}}", 100),
            ("{__schema{types{name}} __typename rows}", 0),
        ] {
            let document = parse_query(text).unwrap();
            let operation = document.operations.iter().next().unwrap().1;
            assert_eq!(of(&costs::all(), &document, &operation.node, &variables), calls, "{text}");
        }
    }

    #[test]
    fn cost_saturates_at_the_largest_integer() {
        let text = "{jobList(first:18446744073709551615){nodes{rows{x} b:rows{x}}}}";
        let document = parse_query(text).unwrap();
        let operation = document.operations.iter().next().unwrap().1;
        assert_eq!(of(&costs::all(), &document, &operation.node, &Variables::default()), u64::MAX);
    }
}
