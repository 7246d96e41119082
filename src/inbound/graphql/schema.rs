//! Builds the schema. No extension is registered: limits, documents and spans live outside it, where they cost less.

use async_graphql::{EmptyMutation, EmptySubscription, Schema};

use crate::jobs::Jobs;

use super::job::{Job, Node};
use super::query::Query;

/// The schema of the gateway.
pub type GatewaySchema = Schema<Query, EmptyMutation, EmptySubscription>;

/// Builds the schema on the use cases. Without introspection, neither is a wrong name answered with a right one.
pub fn build(jobs: Jobs, introspection: bool) -> GatewaySchema {
    let builder = Schema::build(Query, EmptyMutation, EmptySubscription)
        .register_output_type::<Job>()
        .register_output_type::<Node>()
        .data(jobs);
    if introspection {
        builder.finish()
    } else {
        builder.disable_introspection().disable_suggestions().finish()
    }
}

/// The schema as text, in the order it is written here: what `schema/schema.graphql` holds.
pub fn sdl() -> String {
    let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
        .register_output_type::<Job>()
        .register_output_type::<Node>()
        .finish();
    schema.sdl()
}
