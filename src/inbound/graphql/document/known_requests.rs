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
/// The most bytes of an argument for each byte of a literal in the document: a short reference has several strings.
const LITERAL_BYTES: usize = 16;

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
    /// The approximate size of the arguments.
    argument_bytes: usize,
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
        // each root field can have two copies of each variable, as it is written and as it is parsed, and of a literal of the
        // document
        let variable_bytes: usize = variables.values().map(value_bytes).sum();
        let literals = LITERAL_BYTES.saturating_mul(document.text().len());
        let argument_bytes =
            (calls.len() * (size_of::<QueryCall>() + 2 * variable_bytes)).saturating_add(literals);
        let (document, plan) = (Arc::downgrade(document), Arc::downgrade(&query.plan));
        Self { document, plan, calls, operation, variables, values, argument_bytes }
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
        // the variables are values of the request
        let size = (ENTRY_BYTES + 2 * bytes.len()).saturating_add(request.argument_bytes);
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

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::{Name, Value};

    use super::*;
    use crate::inbound::graphql::schema::query::JobListCall;

    /// The size of the arguments of a request whose document has a comment of this length, and whose fields each have the
    /// value of a variable of this length.
    fn argument_bytes(fields: usize, literal: usize, variable: usize) -> usize {
        let text = format!("{{ a }}#{}", "x".repeat(literal));
        let document = Arc::new(ParsedDocument::new(parse_query(&text).unwrap(), &text, 3));
        let (operation, _) = OperationInfo::select(&document.executable, None).unwrap();
        let value = "x".repeat(variable);
        let after = Some(value.clone());
        let call = JobListCall { filter: None, order_by: None, first: 1, after, counts: false };
        let call = || QueryCall::JobList(call.clone());
        let calls = std::iter::repeat_with(call).take(fields).collect();
        let query = BoundQuery { plan: Arc::new(QueryPlan::empty()), calls };
        let mut variables = Variables::default();
        variables.insert(Name::new("after"), Value::String(value));
        KnownRequest::new(&document, &query, operation, Arc::new(variables), 1).argument_bytes
    }

    #[test]
    fn each_field_counts_its_copy_of_a_variable() {
        assert!(argument_bytes(20, 0, 100_000) >= 20 * 100_000);
    }

    #[test]
    fn literals_of_a_document_that_is_sent_by_its_hash_count() {
        assert!(argument_bytes(1, 200_000, 0) >= 200_000);
    }
}
