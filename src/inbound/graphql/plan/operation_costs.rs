//! The costs of an operation, which depend on its variables only by their shapes: whether they are given, the length of a
//! list, and the number of a page. So requests of one shape are checked once.

use async_graphql::parser::types::OperationDefinition;
use async_graphql::{Value, Variables};

/// The most shapes that are kept for one document; the oldest is replaced.
const SHAPES_MAX: usize = 8;

/// What an operation costs at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct OperationCosts {
    /// The upstream calls.
    pub(in crate::inbound::graphql) calls: u64,
    /// The values of the answer.
    pub(in crate::inbound::graphql) values: u64,
}

/// The shape of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VariableShape {
    Absent,
    Null,
    List(usize),
    Number(Option<u64>),
    Other,
}

/// The costs of the operations of one document that passed the limits.
#[derive(Debug, Default)]
pub(super) struct CheckedCosts(Vec<CheckedShape>);

#[derive(Debug)]
struct CheckedShape {
    /// The index of the operation in the document.
    operation: usize,
    variables: Vec<VariableShape>,
    costs: OperationCosts,
}

impl CheckedCosts {
    /// The costs of an operation whose variables had these shapes before.
    pub(super) fn get(
        &self,
        index: usize,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Option<OperationCosts> {
        let is_same = |checked: &&CheckedShape| {
            checked.operation == index && shapes(operation, variables).eq(checked.variables.iter().copied())
        };
        self.0.iter().find(is_same).map(|checked| checked.costs)
    }

    /// Keeps the costs for further variables of these shapes.
    pub(super) fn put(
        &mut self,
        index: usize,
        operation: &OperationDefinition,
        variables: &Variables,
        costs: OperationCosts,
    ) {
        if self.0.len() >= SHAPES_MAX {
            self.0.remove(0);
        }
        let variables = shapes(operation, variables).collect();
        self.0.push(CheckedShape { operation: index, variables, costs });
    }
}

/// The shapes of the variables that an operation declares, in its order.
fn shapes(operation: &OperationDefinition, variables: &Variables) -> impl Iterator<Item = VariableShape> {
    operation.variable_definitions.iter().map(|declared| match variables.get(&declared.node.name.node) {
        None => VariableShape::Absent,
        Some(Value::Null) => VariableShape::Null,
        Some(Value::List(items)) => VariableShape::List(items.len()),
        Some(Value::Number(number)) => VariableShape::Number(number.as_u64()),
        Some(Value::String(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) | Value::Object(_)) => {
            VariableShape::Other
        }
    })
}
