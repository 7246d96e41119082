//! What is known of a request apart from its head: its connection, its peer, and what a handler finds out. One extension has
//! all of it, since each takes a lookup, an insertion and two allocations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Extensions;

use super::peer::{Connection, Peer};
use crate::domain::principal::Principal;

/// The facts of a request, as an extension of it. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct RequestFacts(Arc<RequestFactsState>);

#[derive(Debug, Default)]
struct RequestFactsState {
    connection: Option<Arc<Connection>>,
    found: Mutex<FoundFacts>,
}

/// What is found out while the request is handled, each once.
#[derive(Debug, Default)]
struct FoundFacts {
    peer: Option<Peer>,
    client: Option<Principal>,
    operation: Option<&'static str>,
}

impl RequestFacts {
    /// A request on a connection; the listener adds it to the request.
    pub fn on(connection: Arc<Connection>) -> Self {
        Self(Arc::new(RequestFactsState { connection: Some(connection), found: Mutex::default() }))
    }

    /// The facts of a request; new ones, which are added, for one that no listener received.
    pub(super) fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// The connection of a request; `None` if no listener received it.
    pub(in crate::inbound) fn connection(extensions: &Extensions) -> Option<&Connection> {
        extensions.get::<Self>()?.0.connection.as_deref()
    }

    /// The peer of a request, once it is determined.
    pub(in crate::inbound) fn peer(extensions: &Extensions) -> Option<Peer> {
        extensions.get::<Self>()?.found().peer
    }

    /// Records the peer.
    pub(super) fn set_peer(extensions: &Extensions, peer: Peer) {
        if let Some(facts) = extensions.get::<Self>() {
            facts.found().peer = Some(peer);
        }
    }

    /// Records the client.
    pub(in crate::inbound) fn set_client(extensions: &Extensions, client: &Principal) {
        if let Some(facts) = extensions.get::<Self>() {
            facts.found().client = Some(client.clone());
        }
    }

    /// Records the word for the type of the operation.
    pub(in crate::inbound) fn set_operation(extensions: &Extensions, word: &'static str) {
        if let Some(facts) = extensions.get::<Self>() {
            facts.found().operation = Some(word);
        }
    }

    /// The client, if it is known.
    pub(super) fn client(&self) -> Option<Principal> {
        self.found().client.clone()
    }

    /// The type of the operation, if it is known.
    pub(super) fn operation(&self) -> Option<&'static str> {
        self.found().operation
    }

    fn found(&self) -> MutexGuard<'_, FoundFacts> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
