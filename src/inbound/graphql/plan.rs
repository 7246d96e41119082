//! Compiled plans: a valid document, resolved against the schema once, and written as JSON without the engine. Not here:
//! what a field means, which each type of `schema` states once for the engine and for the plan.

mod arguments;
pub(in crate::inbound::graphql) mod compile;
pub(in crate::inbound::graphql) mod conditions;
pub(in crate::inbound::graphql) mod document;
pub(in crate::inbound::graphql) mod operation_costs;
pub(in crate::inbound::graphql) mod output;
pub(in crate::inbound::graphql) mod query;
pub(in crate::inbound::graphql) mod rendered;
mod root;
pub(in crate::inbound::graphql) mod selection;
pub(in crate::inbound::graphql) mod subscription;
pub(in crate::inbound::graphql) mod validation;
pub(in crate::inbound::graphql) mod writer;
