//! What is known of a request apart from its head: its connection, its peer, and what a handler finds out. Functions take it
//! as a parameter. A router passes only the request to a handler, so there it is an extension of the request, which costs a
//! map, an insertion and a lookup for each use.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use http::Extensions;
use http::request::Parts;

use super::peer::{Connection, Peer};
use crate::domain::principal::Principal;

/// The facts of a request. A clone shares them.
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
    /// A request on a connection.
    pub fn on(connection: Arc<Connection>) -> Self {
        Self(Arc::new(RequestFactsState { connection: Some(connection), found: Mutex::default() }))
    }

    /// The facts in the extensions of a request; new ones, which are added, for one without.
    pub(super) fn of(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_default::<Self>().clone()
    }

    /// The connection of the request; `None` if no listener received it.
    pub(in crate::inbound) fn connection(&self) -> Option<&Connection> {
        self.0.connection.as_deref()
    }

    /// The peer of the request, once it is determined.
    pub(in crate::inbound) fn peer(&self) -> Option<Peer> {
        self.found().peer
    }

    /// Whether the request was sent by `https`; none if that is not known.
    pub(in crate::inbound) fn secure(&self) -> Option<bool> {
        self.peer()?.secure
    }

    /// Records the peer.
    pub(super) fn set_peer(&self, peer: Peer) {
        self.found().peer = Some(peer);
    }

    /// Records the client.
    pub(in crate::inbound) fn set_client(&self, client: &Principal) {
        self.found().client = Some(client.clone());
    }

    /// Records the word for the type of the operation.
    pub(in crate::inbound) fn set_operation(&self, word: &'static str) {
        self.found().operation = Some(word);
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

impl<S: Sync> FromRequestParts<S> for RequestFacts {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&mut parts.extensions))
    }
}
