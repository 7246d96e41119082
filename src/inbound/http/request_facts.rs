//! What a handler finds out about a request: its client and its operation. The layers read it after the response.

use std::sync::{Arc, OnceLock};

use async_graphql::parser::types::OperationType;

use crate::domain::principal::Principal;

/// Facts that handlers record about a request, as an extension of it.
#[derive(Clone, Debug, Default)]
pub(in crate::inbound) struct RequestFacts(Arc<RequestFactsState>);

#[derive(Debug, Default)]
struct RequestFactsState {
    client: OnceLock<Arc<str>>,
    operation: OnceLock<&'static str>,
}

impl RequestFacts {
    /// Records the name of the client.
    pub(in crate::inbound) fn set_client(extensions: &http::Extensions, client: &Principal) {
        if let Some(facts) = extensions.get::<Self>() {
            facts.0.client.set(client.shared_name()).ok();
        }
    }

    /// Records the type of the operation.
    pub(in crate::inbound) fn set_operation(extensions: &http::Extensions, kind: OperationType) {
        if let Some(facts) = extensions.get::<Self>() {
            let word = match kind {
                OperationType::Query => "query",
                OperationType::Mutation => "mutation",
                OperationType::Subscription => "subscription",
            };
            facts.0.operation.set(word).ok();
        }
    }

    /// The name of the client, if it is known.
    pub(super) fn client(&self) -> Option<&str> {
        self.0.client.get().map(|name| &**name)
    }

    /// The type of the operation, if it is known.
    pub(super) fn operation(&self) -> Option<&'static str> {
        self.0.operation.get().copied()
    }
}
