//! A parsed document with its plans, which are compiled when they are first needed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::Variables;
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};

use super::compile::OutputTypes;
use super::conditions::{ConditionNames, Conditions};
use super::query::QueryPlan;
use crate::inbound::graphql::document::coercion::InputTypes;

/// The most plans of one document: for its operations, and for the values of the variables in its directives.
const PLANS_MAX: usize = 8;
/// The most fields of the plans of a document, for each token of its text.
const FIELDS_A_TOKEN: usize = 4;

/// A document that was parsed and is within the limits.
pub(in crate::inbound::graphql) struct ParsedDocument {
    pub(in crate::inbound::graphql) executable: ExecutableDocument,
    conditions: ConditionNames,
    /// How many fields a plan may have.
    max_fields: usize,
    plans: Mutex<Vec<HeldPlan>>,
}

/// The plan of an operation, or that the engine must execute it.
struct HeldPlan {
    operation: Option<String>,
    conditions: Conditions,
    plan: Option<Arc<QueryPlan>>,
}

impl ParsedDocument {
    /// A document of this many tokens.
    pub(in crate::inbound::graphql) fn new(executable: ExecutableDocument, tokens: usize) -> Self {
        let conditions = ConditionNames::of(&executable);
        let max_fields = tokens.saturating_mul(FIELDS_A_TOKEN) / PLANS_MAX;
        Self { executable, conditions, max_fields, plans: Mutex::default() }
    }

    /// The plan of an operation; `None` if the engine must execute it. The document must be valid.
    pub(in crate::inbound::graphql) fn plan(
        &self,
        types: &InputTypes,
        outputs: &OutputTypes,
        name: Option<&str>,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Option<Arc<QueryPlan>> {
        let conditions = self.conditions.values(operation, variables)?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = |held: &&HeldPlan| held.operation.as_deref() == name && held.conditions == conditions;
        if let Some(held) = plans.iter().find(is_held) {
            return held.plan.clone();
        }
        if plans.len() >= PLANS_MAX {
            return None;
        }
        let compiled =
            QueryPlan::compile(types, outputs, &self.executable, operation, &conditions, self.max_fields);
        let plan = compiled.ok().map(Arc::new);
        plans.push(HeldPlan { operation: name.map(ToOwned::to_owned), conditions, plan: plan.clone() });
        plan
    }
}

impl fmt::Debug for ParsedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedDocument").finish_non_exhaustive()
    }
}
