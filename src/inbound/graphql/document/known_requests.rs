//! Requests that were prepared before, by their bytes: an equal one is neither parsed nor coerced again, whichever client
//! sends it. Bounded by an estimate of their bytes. Only queries that a plan executes; every limit of a client applies to
//! each request all the same.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_graphql::{Value as Constant, Variables};

use super::generations::Generations;
use super::operation::OperationInfo;
use super::request::RequestText;
use crate::inbound::graphql::plan::document::ParsedDocument;
use crate::inbound::graphql::plan::query::{BoundQuery, QueryCall, QueryPlan};

/// The size of the cache, approximately, in bytes.
const KNOWN_BYTES: usize = 16 * 1024 * 1024;
/// The size of an entry beside its text and its variables.
const ENTRY_BYTES: usize = 512;

/// A request that was prepared before. The document belongs to the cache of parsed documents: when that drops it, the
/// request is not known any more.
pub(super) struct KnownRequest {
    document: Weak<ParsedDocument>,
    plan: Weak<QueryPlan>,
    calls: Arc<[QueryCall]>,
    pub(super) operation: OperationInfo,
    pub(super) variables: Arc<Variables>,
    /// The most values of its answer.
    pub(super) values: u64,
}

/// The requests that were prepared before. The same text has another meaning in a body than in a URL.
pub(super) struct KnownRequests {
    json: Mutex<Generations<Box<[u8]>, Arc<KnownRequest>>>,
    url: Mutex<Generations<Box<[u8]>, Arc<KnownRequest>>>,
}

impl KnownRequest {
    /// A request that a plan executes.
    pub(super) fn new(
        document: &Arc<ParsedDocument>,
        query: &BoundQuery,
        operation: OperationInfo,
        variables: Arc<Variables>,
        values: u64,
    ) -> Self {
        let calls = Arc::clone(&query.calls);
        let (document, plan) = (Arc::downgrade(document), Arc::downgrade(&query.plan));
        Self { document, plan, calls, operation, variables, values }
    }

    /// Its document and its query, while the document is cached.
    pub(super) fn query(&self) -> Option<(Arc<ParsedDocument>, BoundQuery)> {
        let (document, plan) = (self.document.upgrade()?, self.plan.upgrade()?);
        Some((document, BoundQuery { plan, calls: Arc::clone(&self.calls) }))
    }
}

impl KnownRequests {
    /// The request of a text, if it is known.
    pub(super) fn get(&self, text: RequestText<'_>) -> Option<Arc<KnownRequest>> {
        let (held, bytes) = self.of(text);
        held.lock().unwrap_or_else(PoisonError::into_inner).get(bytes)
    }

    /// Keeps a request.
    pub(super) fn keep(&self, text: RequestText<'_>, request: KnownRequest) {
        let (held, bytes) = self.of(text);
        // the arguments repeat the text and the variables
        let variables: usize = request.variables.values().map(value_bytes).sum();
        let size = ENTRY_BYTES + 2 * (bytes.len() + variables);
        held.lock().unwrap_or_else(PoisonError::into_inner).put(bytes.into(), Arc::new(request), size);
    }

    #[expect(clippy::type_complexity, reason = "the key and the value of one map")]
    fn of<'a>(&self, text: RequestText<'a>) -> (&Mutex<Generations<Box<[u8]>, Arc<KnownRequest>>>, &'a [u8]) {
        match text {
            RequestText::Json(body) => (&self.json, body),
            RequestText::Url(component) => (&self.url, component.as_bytes()),
        }
    }
}

impl Default for KnownRequests {
    fn default() -> Self {
        let half = || Mutex::new(Generations::new(KNOWN_BYTES / 2));
        Self { json: half(), url: half() }
    }
}

/// The approximate size of a value.
fn value_bytes(value: &Constant) -> usize {
    let below = match value {
        Constant::String(text) => text.len(),
        Constant::Enum(name) => name.len(),
        Constant::Binary(bytes) => bytes.len(),
        Constant::List(items) => items.iter().map(value_bytes).sum(),
        // the entry of a map has a hash, and the name is shared
        Constant::Object(fields) => {
            fields.iter().map(|(name, value)| 64 + name.len() + value_bytes(value)).sum()
        }
        Constant::Null | Constant::Number(_) | Constant::Boolean(_) => 0,
    };
    size_of::<Constant>() + below
}

impl fmt::Debug for KnownRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownRequests").finish_non_exhaustive()
    }
}
