//! Builds the schema; the folder has its types and resolvers, thin views over `domain` and `jobs`. Not here: anything
//! that is not visible in the schema. No extension is registered: limits, documents and spans are implemented outside of
//! it, where they cost less.

pub(super) mod costs;
pub mod filter;
pub mod job;
pub mod job_connection;
pub mod job_fields;
mod job_object;
pub mod label;
pub mod mutation;
pub mod page;
pub mod problem;
pub mod query;
pub mod reference;
pub mod rows;
pub mod scalars;
pub mod source;
pub mod subscription;
pub mod update;
pub mod viewer;

use async_graphql::parser;
use async_graphql::{Schema, SchemaBuilder};

use crate::jobs::Jobs;

use self::job::{GqlJob, Node};
use self::mutation::MutationRoot;
use self::query::QueryRoot;
use self::subscription::Subscriptions;
use super::document::coercion::InputTypes;

/// The schema of the gateway.
pub type GatewaySchema = Schema<QueryRoot, MutationRoot, Subscriptions>;

/// Builds the schema on the use cases. Without introspection, errors about unknown names suggest no existing ones.
pub fn build(jobs: Jobs, introspection: bool) -> GatewaySchema {
    let builder = types().data(jobs);
    if introspection {
        builder.finish()
    } else {
        builder.disable_introspection().disable_suggestions().finish()
    }
}

/// The schema as text, in the order of its definition: the content of `schema/schema.graphql`.
pub fn sdl() -> String {
    types().finish().sdl()
}

/// Parses the input types of the schema, by which variables are validated before anything executes.
///
/// # Errors
/// Returns an error if the engine's own text of the schema cannot be parsed.
pub fn input_types() -> Result<InputTypes, parser::Error> {
    Ok(InputTypes::from_sdl(&sdl(), &scalars::TEXTS)?.with_costs(costs::all()))
}

pub(super) fn types() -> SchemaBuilder<QueryRoot, MutationRoot, Subscriptions> {
    // No field returns only an interface, so the engine does not find the interfaces by itself.
    Schema::build(QueryRoot, MutationRoot, Subscriptions)
        .register_output_type::<GqlJob>()
        .register_output_type::<Node>()
}
