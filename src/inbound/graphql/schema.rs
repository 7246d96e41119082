//! Builds the schema. No extension is registered: limits, documents and spans live outside it, where they cost less.

use async_graphql::parser;
use async_graphql::{Schema, SchemaBuilder};

use crate::jobs::Jobs;

use super::coerce::InputTypes;
use super::job::{GqlJob, Node};
use super::mutation::MutationRoot;
use super::query::QueryRoot;
use super::scalars;
use super::subscription::Subscriptions;

/// The schema of the gateway.
pub type GatewaySchema = Schema<QueryRoot, MutationRoot, Subscriptions>;

/// Builds the schema on the use cases. Without introspection, neither is a wrong name answered with a right one.
pub fn build(jobs: Jobs, introspection: bool) -> GatewaySchema {
    let builder = types().data(jobs);
    if introspection {
        builder.finish()
    } else {
        builder.disable_introspection().disable_suggestions().finish()
    }
}

/// The schema as text, in the order it is written here: what `schema/schema.graphql` holds.
pub fn sdl() -> String {
    types().finish().sdl()
}

/// Reads the input types of the schema, by which variables are judged before anything executes.
///
/// # Errors
/// When the engine's own text of the schema cannot be read back.
pub fn input_types() -> Result<InputTypes, parser::Error> {
    InputTypes::from_sdl(&sdl(), &scalars::TEXTS)
}

pub(super) fn types() -> SchemaBuilder<QueryRoot, MutationRoot, Subscriptions> {
    // No field returns an interface alone, so the engine does not find them by itself.
    Schema::build(QueryRoot, MutationRoot, Subscriptions)
        .register_output_type::<GqlJob>()
        .register_output_type::<Node>()
}
