//! Request data by which the engine only validates a subscription, since a plan delivers its updates.

use async_graphql::Context;

/// The resolvers of a subscription check their arguments and deliver nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::inbound::graphql) struct ValidateOnly;

impl ValidateOnly {
    /// Whether the request is only to be validated.
    pub(in crate::inbound::graphql) fn applies_to(ctx: &Context<'_>) -> bool {
        ctx.data_opt::<Self>().is_some()
    }
}
