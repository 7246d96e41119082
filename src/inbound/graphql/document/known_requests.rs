//! Requests that were prepared before, by their bytes: an equal one is neither parsed nor coerced again, whichever client
//! sends it. Bounded by an estimate of their bytes. Only queries that a plan executes; every limit of a client applies to
//! each request all the same.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_graphql::{Value as Constant, Variables};

use super::generations::Generations;
use super::operation::OperationInfo;
use super::request::{GraphqlRequest, RequestText};
use crate::inbound::graphql::plan::document::ParsedDocument;
use crate::inbound::graphql::plan::query::{BoundQuery, QueryCall, QueryPlan};
use crate::inbound::graphql::schema::query::JobListCall;

/// The size of the cache, approximately, in bytes.
const KNOWN_BYTES: usize = 16 * 1024 * 1024;
/// The size of an entry beside its text and its arguments.
const ENTRY_BYTES: usize = 512;
/// The most bytes of a root field without its texts: a list has its arguments in a box.
const CALL_BYTES: usize = size_of::<QueryCall>() + size_of::<JobListCall>();
/// The most bytes of an argument for each byte of a literal in the document: a short reference has several strings.
const LITERAL_BYTES: usize = 16;

/// A request that was prepared before. The document belongs to the cache of parsed documents: when that drops it, the
/// request is not known any more.
pub(in crate::inbound::graphql) struct KnownRequest {
    text: KnownText,
    document: Weak<ParsedDocument>,
    plan: Weak<QueryPlan>,
    calls: Arc<[QueryCall]>,
    pub(super) operation: OperationInfo,
    /// The most values of its answer.
    pub(super) values: u64,
    /// The approximate size of the arguments.
    argument_bytes: usize,
}

/// The text of a known request.
enum KnownText {
    Json(Arc<[u8]>),
    Url(Arc<str>),
}

/// The variables of an operation.
pub(in crate::inbound::graphql) enum OperationVariables {
    Parsed(Variables),
    /// Those in the text of a known request: its plan has the arguments, so that only the engine needs them again.
    Known(Arc<KnownRequest>),
}

/// The requests that were prepared before. The same text has another meaning in a body than in a URL.
pub(super) struct KnownRequests {
    json: Mutex<KnownByText>,
    url: Mutex<KnownByText>,
}

type KnownByText = Generations<Arc<[u8]>, Arc<KnownRequest>>;

impl KnownRequest {
    /// A request that a plan executes.
    pub(super) fn new(
        text: RequestText<'_>,
        document: &Arc<ParsedDocument>,
        query: &BoundQuery,
        operation: OperationInfo,
        variables: &Variables,
        values: u64,
    ) -> Self {
        let calls = Arc::clone(&query.calls);
        // each root field can have two copies of each variable, as it is written and as it is parsed, and of a literal of the
        // document
        let variable_bytes: usize = variables.values().map(value_bytes).sum();
        let literals = LITERAL_BYTES.saturating_mul(document.text().len());
        let argument_bytes = (calls.len() * (CALL_BYTES + 2 * variable_bytes)).saturating_add(literals);
        let (document, plan) = (Arc::downgrade(document), Arc::downgrade(&query.plan));
        let text = match text {
            RequestText::Json(body) => KnownText::Json(body.into()),
            RequestText::Url(component) => KnownText::Url(component.into()),
        };
        Self { text, document, plan, calls, operation, values, argument_bytes }
    }

    /// Its document and its query, while the document is cached.
    pub(super) fn query(&self) -> Option<(Arc<ParsedDocument>, BoundQuery)> {
        let (document, plan) = (self.document.upgrade()?, self.plan.upgrade()?);
        Some((document, BoundQuery { plan, calls: Arc::clone(&self.calls) }))
    }
}

impl KnownText {
    fn as_request(&self) -> RequestText<'_> {
        match self {
            Self::Json(body) => RequestText::Json(body),
            Self::Url(component) => RequestText::Url(component),
        }
    }

    /// The text as the key of a known request.
    fn key(&self) -> Arc<[u8]> {
        match self {
            Self::Json(body) => Arc::clone(body),
            Self::Url(component) => Arc::clone(component).into(),
        }
    }
}

impl OperationVariables {
    /// The variables. Those of a known request are parsed.
    pub(in crate::inbound::graphql) fn get(&self) -> Cow<'_, Variables> {
        match self {
            Self::Parsed(variables) => Cow::Borrowed(variables),
            // the text was parsed before it was known, so it is valid
            Self::Known(known) => GraphqlRequest::parse(known.text.as_request())
                .map_or_else(|_| Cow::default(), |request| Cow::Owned(request.variables)),
        }
    }
}

impl KnownRequests {
    /// The request of a text, if it is known.
    pub(super) fn get(&self, text: RequestText<'_>) -> Option<Arc<KnownRequest>> {
        let (held, bytes) = self.of(text);
        held.lock().unwrap_or_else(PoisonError::into_inner).get(bytes)
    }

    /// Keeps a request.
    pub(super) fn keep(&self, request: KnownRequest) {
        let key = request.text.key();
        let (held, bytes) = self.of(request.text.as_request());
        let size = (ENTRY_BYTES + bytes.len()).saturating_add(request.argument_bytes);
        held.lock().unwrap_or_else(PoisonError::into_inner).put(key, Arc::new(request), size);
    }

    fn of<'a>(&self, text: RequestText<'a>) -> (&Mutex<KnownByText>, &'a [u8]) {
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

    /// The request of a text that a plan without a root field executes.
    fn known(text: RequestText<'_>) -> KnownRequest {
        let document = Arc::new(ParsedDocument::new(parse_query("{ a }").unwrap(), "{ a }", 3));
        let (operation, _) = OperationInfo::select(&document.executable, None).unwrap();
        let query = BoundQuery { plan: Arc::new(QueryPlan::empty()), calls: Arc::new([]) };
        KnownRequest::new(text, &document, &query, operation, &Variables::default(), 1)
    }

    #[test]
    fn variables_of_a_known_request_are_those_of_its_text() {
        let texts = [
            RequestText::Json(br#"{"query":"{ a }","variables":{"after":"x"}}"#),
            RequestText::Url("query=%7B+a+%7D&variables=%7B%22after%22%3A%22x%22%7D"),
        ];
        let requests = KnownRequests::default();
        for text in texts {
            requests.keep(known(text));
            let variables = OperationVariables::Known(requests.get(text).unwrap());
            assert_eq!(variables.get()["after"], Value::String("x".to_owned()), "{text:?}");
        }
    }

    /// The size of the arguments of a request whose document has a comment of this length, and whose fields each have the
    /// value of a variable of this length.
    fn argument_bytes(fields: usize, literal: usize, variable: usize) -> usize {
        let text = format!("{{ a }}#{}", "x".repeat(literal));
        let document = Arc::new(ParsedDocument::new(parse_query(&text).unwrap(), &text, 3));
        let (operation, _) = OperationInfo::select(&document.executable, None).unwrap();
        let value = "x".repeat(variable);
        let after = Some(value.clone());
        let call = JobListCall { filter: None, order_by: None, first: 1, after, counts: false };
        let call = || QueryCall::JobList(Box::new(call.clone()));
        let calls = std::iter::repeat_with(call).take(fields).collect();
        let query = BoundQuery { plan: Arc::new(QueryPlan::empty()), calls };
        let mut variables = Variables::default();
        variables.insert(Name::new("after"), Value::String(value));
        let text = RequestText::Json(b"{}");
        KnownRequest::new(text, &document, &query, operation, &variables, 1).argument_bytes
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
