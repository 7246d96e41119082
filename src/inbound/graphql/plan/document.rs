//! A parsed document with its plans, which are compiled when they are first needed.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType};
use async_graphql::{Name, Value as Constant, Variables};

use super::compile::{Compiler, OutputTypes};
use super::conditions::{ConditionNames, Conditions};
use super::operation_costs::{CheckedCosts, OperationCosts};
use super::query::QueryPlan;
use super::subscription::SubscriptionPlan;
use crate::inbound::graphql::document::coercion::InputTypes;
use crate::inbound::graphql::document::persisted::{DocumentHash, hash_of};

/// The most plans of one document: for its operations, and for the values of the variables in its directives.
const PLANS_MAX: usize = 8;
/// The approximate size of all plans of a document, in bytes for each token of its text. A selection is compiled for
/// each object type that it can apply to, and for each plan.
const PLAN_BYTES_A_TOKEN: usize = 256;
/// The same for each byte of its text: names and literals are copied.
const PLAN_BYTES_A_BYTE: usize = 4;
/// The approximate size of a parsed document for each token: a field with its positions is some 400 bytes for two or
/// three tokens.
const PARSED_BYTES_A_TOKEN: usize = 200;

/// Of so many uses of a document without its text, the caches of texts hear of one.
const REPORTED_USE: u32 = 64;

/// A document that was parsed and is within the limits.
pub(in crate::inbound::graphql) struct ParsedDocument {
    pub(in crate::inbound::graphql) executable: ExecutableDocument,
    text: Arc<str>,
    hash: DocumentHash,
    /// How many requests found it without its text.
    uses: AtomicU32,
    conditions: ConditionNames,
    plans: Mutex<HeldPlans>,
    costs: Mutex<CheckedCosts>,
}

/// The plans of a document.
struct HeldPlans {
    plans: Vec<HeldPlan>,
    /// How many bytes further plans may have, approximately.
    left: usize,
}

/// The plan of an operation.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) enum OperationPlan {
    Query(Arc<QueryPlan>),
    Subscription(Arc<SubscriptionPlan>),
}

/// The plan of an operation, or that the engine must execute it.
struct HeldPlan {
    /// The index of the operation in the document.
    operation: usize,
    conditions: Conditions,
    plan: Option<OperationPlan>,
}

impl ParsedDocument {
    /// A document with its text, which has this many tokens.
    pub(in crate::inbound::graphql) fn new(
        executable: ExecutableDocument,
        text: &str,
        tokens: usize,
    ) -> Self {
        let conditions = ConditionNames::of(&executable);
        let left = plan_bytes(text.len(), tokens);
        Self {
            executable,
            text: text.into(),
            hash: hash_of(text),
            uses: AtomicU32::new(0),
            conditions,
            plans: Mutex::new(HeldPlans { plans: Vec::new(), left }),
            costs: Mutex::default(),
        }
    }

    /// Its text.
    pub(in crate::inbound::graphql) const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Counts a request that found it without its text. Whether the caches of texts must hear of it now.
    pub(in crate::inbound::graphql) fn is_reported_use(&self) -> bool {
        self.uses.fetch_add(1, Ordering::Relaxed).is_multiple_of(REPORTED_USE)
    }

    /// The hash of its text.
    pub(in crate::inbound::graphql) const fn hash(&self) -> &DocumentHash {
        &self.hash
    }

    /// The costs of an operation: as checked before for variables of these shapes, else by `check`.
    ///
    /// # Errors
    /// Those of `check`.
    pub(in crate::inbound::graphql) fn costs<E>(
        &self,
        name: Option<&str>,
        operation: &OperationDefinition,
        variables: &Variables,
        check: impl FnOnce() -> Result<OperationCosts, E>,
    ) -> Result<OperationCosts, E> {
        let held = || self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((index, _)) = self.operation(name) else { return check() };
        if let Some(costs) = held().get(index, operation, variables) {
            return Ok(costs);
        }
        let costs = check()?;
        held().put(index, operation, variables, costs);
        Ok(costs)
    }

    /// The defaults of the variables of an operation.
    pub(in crate::inbound::graphql) fn defaults(
        &self,
        name: Option<&str>,
    ) -> impl Iterator<Item = (&Name, &Constant)> {
        self.operation(name)
            .into_iter()
            .flat_map(|(_, operation)| &operation.variable_definitions)
            .filter_map(|one| {
                let default = one.node.default_value.as_ref()?;
                Some((&one.node.name.node, &default.node))
            })
    }

    /// The approximate size of the document with its text and all its plans, in bytes.
    pub(in crate::inbound::graphql) const fn bytes(bytes: usize, tokens: usize) -> usize {
        let parsed = tokens.saturating_mul(PARSED_BYTES_A_TOKEN);
        bytes.saturating_add(parsed).saturating_add(plan_bytes(bytes, tokens))
    }

    /// An operation and its index in the document.
    fn operation(&self, name: Option<&str>) -> Option<(usize, &OperationDefinition)> {
        let mut operations = self.executable.operations.iter().enumerate();
        let (index, (_, found)) = operations.find(|(_, (known, _))| known.map(Name::as_str) == name)?;
        Some((index, &found.node))
    }

    /// The plan of an operation; `None` if the engine must execute it. The document must be valid.
    pub(in crate::inbound::graphql) fn plan(
        &self,
        types: &InputTypes,
        outputs: &OutputTypes,
        name: Option<&str>,
        variables: &Variables,
    ) -> Option<OperationPlan> {
        let (index, operation) = self.operation(name)?;
        let conditions = self.conditions.values(operation, variables)?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let HeldPlans { plans, left } = &mut *plans;
        let is_held = |held: &&HeldPlan| held.operation == index && held.conditions == conditions;
        if let Some(held) = plans.iter().find(is_held) {
            return held.plan.clone();
        }
        if plans.len() >= PLANS_MAX {
            return None;
        }
        let mut compiler =
            Compiler { types, outputs, document: &self.executable, conditions: &conditions, left: *left };
        let plan = match operation.ty {
            OperationType::Query => {
                let compiled = QueryPlan::compile(&mut compiler, operation);
                compiled.ok().map(|plan| OperationPlan::Query(Arc::new(plan)))
            }
            OperationType::Subscription => {
                let compiled = SubscriptionPlan::compile(&mut compiler, operation);
                compiled.ok().map(|plan| OperationPlan::Subscription(Arc::new(plan)))
            }
            OperationType::Mutation => None,
        };
        *left = compiler.left;
        plans.push(HeldPlan { operation: index, conditions, plan: plan.clone() });
        plan
    }
}

/// How many bytes the plans of a document may have.
const fn plan_bytes(bytes: usize, tokens: usize) -> usize {
    let of_tokens = tokens.saturating_mul(PLAN_BYTES_A_TOKEN);
    of_tokens.saturating_add(bytes.saturating_mul(PLAN_BYTES_A_BYTE))
}

impl fmt::Debug for ParsedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedDocument").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::inbound::graphql::schema;

    /// The plan of the only operation of a document, with these variables.
    fn plan(document: &ParsedDocument, variables: serde_json::Value) -> Option<OperationPlan> {
        let types = schema::input_types().unwrap();
        let outputs = OutputTypes::new(schema::costs::objects());
        document.plan(&types, &outputs, None, &Variables::from_json(variables))
    }

    fn address(plan: Option<OperationPlan>) -> Option<usize> {
        plan.map(|plan| match plan {
            OperationPlan::Query(plan) => Arc::as_ptr(&plan).addr(),
            OperationPlan::Subscription(plan) => Arc::as_ptr(&plan).addr(),
        })
    }

    #[test]
    fn requests_share_a_plan_unless_a_directive_differs() {
        for text in [
            "query($ref: JobRef!, $with: Boolean!) { job(ref: $ref) { ... on Job { id state @include(if: $with) } } }",
            "subscription($ref: JobRef!, $with: Boolean!) { jobUpdates(refs: [$ref]) { kind isFinal @skip(if: $with) } }",
        ] {
            let document = ParsedDocument::new(parse_query(text).unwrap(), text, 100);
            let of =
                |id: &str, with: bool| address(plan(&document, json!({ "ref": { "id": id }, "with": with })));
            let first = of("a", true);
            assert!(first.is_some(), "{text}");
            assert_eq!(of("b", true), first, "{text}");
            assert_ne!(of("a", false), first, "{text}");
        }
    }

    #[test]
    fn plans_of_a_document_are_bounded() {
        let variables: Vec<_> = (0..5).map(|index| format!("$v{index}: Boolean!")).collect();
        let fields: Vec<_> =
            (0..5).map(|index| format!("f{index}: __typename @skip(if: $v{index})")).collect();
        let text = format!("query({}) {{ {} }}", variables.join(" "), fields.join(" "));
        let document = ParsedDocument::new(parse_query(&text).unwrap(), &text, 100);
        let planned = (0..32).filter(|bits| {
            let values = (0..5).map(|index| (format!("v{index}"), json!(bits >> index & 1 == 1)));
            plan(&document, serde_json::Value::Object(values.collect())).is_some()
        });
        assert_eq!(planned.count(), PLANS_MAX);
    }

    #[test]
    fn selection_much_larger_than_its_text_is_left_to_the_engine() {
        let chain: Vec<_> = (0..8)
            .map(|index| format!("fragment F{index} on Query {{ ...F{} ...F{} }}", index + 1, index + 1))
            .collect();
        let text = format!("{{ ...F0 }} {} fragment F8 on Query {{ __typename }}", chain.join(" "));
        let document = ParsedDocument::new(parse_query(&text).unwrap(), &text, 60);
        assert!(plan(&document, json!({})).is_none());
    }
}
