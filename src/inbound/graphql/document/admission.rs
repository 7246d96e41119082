//! The admission of an operation: every check before the engine, the same for every transport, so that the limits apply to
//! all of them.

use std::sync::Arc;

use async_graphql::parser::types::{OperationDefinition, OperationType};
use async_graphql::parser::{self, parse_query};
use async_graphql::{Request as EngineRequest, Variables};
use tracing::Span;

use super::coercion::InputTypes;
use super::known_requests::{KnownRequest, KnownRequests, OperationVariables};
use super::limits::DocumentLimits;
use super::operation::OperationInfo;
use super::parse_cache::ParseCache;
use super::persisted::{DocumentHash, PersistedDocuments, ResolvedDocument};
use super::request::{GraphqlRequest, RequestText};
use crate::domain::principal::Principal;
use crate::inbound::answer_limits::answer_memory::{AnswerMemory, ClientMemory};
use crate::inbound::answer_limits::cpu_limiter::{CpuGate, CpuLimiter};
use crate::inbound::client_limits::{ClientLimits, RequestPermit};
use crate::inbound::graphql::plan::compile::OutputTypes;
use crate::inbound::graphql::plan::document::{OperationPlan, ParsedDocument};
use crate::inbound::graphql::plan::operation_costs::OperationCosts;
use crate::inbound::graphql::plan::query::BoundQuery;
use crate::inbound::graphql::plan::subscription::SubscriptionPlan;
use crate::inbound::graphql::schema::{self, subscription::LastEventId};
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::jobs::Jobs;
use crate::telemetry::trace;

/// The size of the cache of parsed documents and their plans, approximately, in bytes.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The limits of admission beside those of a document. The default has no limits.
#[derive(Debug, Default)]
pub struct Admission {
    /// The limits of one client.
    pub clients: ClientLimits,
    /// The documents with an id, and whether others are executed.
    pub documents: PersistedDocuments,
    /// The memory of answers.
    pub memory: AnswerMemory,
    /// How many large answers are computed at the same time.
    pub cpu: CpuLimiter,
    /// The use cases that plans call. Without them, the engine executes every operation.
    pub plans: Option<Jobs>,
}

/// Admits operations to the engine.
pub(in crate::inbound::graphql) struct OperationAdmission {
    limits: DocumentLimits,
    types: InputTypes,
    outputs: OutputTypes,
    settings: Admission,
    parsed: ParseCache,
    known: KnownRequests,
}

/// An operation that passed every check before the engine.
pub(in crate::inbound::graphql) struct PreparedOperation {
    pub(in crate::inbound::graphql) principal: Principal,
    pub(in crate::inbound::graphql) variables: OperationVariables,
    pub(in crate::inbound::graphql) operation: OperationInfo,
    pub(in crate::inbound::graphql) document: Arc<ParsedDocument>,
    /// The plan that executes it without the engine; none before the document was validated.
    pub(in crate::inbound::graphql) plan: Option<PreparedPlan>,
    pub(in crate::inbound::graphql) fresh: Option<Box<UncachedDocument>>,
    /// The permit for the watched jobs of a subscription.
    pub(in crate::inbound::graphql) watching: Option<RequestPermit>,
    /// The most values of an answer.
    pub(in crate::inbound::graphql) values: u64,
    /// The memory for its client.
    pub(in crate::inbound::graphql) memory: ClientMemory,
    /// The permits for each step of a large answer.
    pub(in crate::inbound::graphql) cpu: Option<CpuGate>,
    pub(in crate::inbound::graphql) span: Span,
    /// The id of the last event that the client of a stream received.
    pub(in crate::inbound::graphql) last_event_id: Option<LastEventId>,
}

/// The plan of an operation, with its arguments.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) enum PreparedPlan {
    Query(BoundQuery),
    Subscription(Arc<SubscriptionPlan>),
}

/// A document to be cached once the engine has validated it.
pub(in crate::inbound::graphql) struct UncachedDocument {
    tokens: usize,
    document: Arc<ParsedDocument>,
    learn: Option<DocumentHash>,
}

/// The request for the engine: without the text, since the engine only needs the parsed document.
pub(in crate::inbound::graphql) fn engine_request(
    document: &ParsedDocument,
    operation: &OperationInfo,
    variables: &OperationVariables,
    principal: &Principal,
) -> EngineRequest {
    let mut variables = variables.get().into_owned();
    // the engine ignores the default of a variable in a directive (async-graphql 8.0.0-rc.5)
    for (name, default) in document.defaults(operation.name.as_deref()) {
        variables.entry(name.clone()).or_insert_with(|| default.clone());
    }
    let mut request = EngineRequest::new("").variables(variables);
    request.operation_name = operation.name.as_deref().map(ToOwned::to_owned);
    request.set_parsed_query(document.executable.clone());
    request.data(principal.clone()).data(operation.clone())
}

impl OperationAdmission {
    /// For a schema whose input types are `types`.
    pub(in crate::inbound::graphql) fn new(
        limits: DocumentLimits,
        types: InputTypes,
        settings: Admission,
    ) -> Self {
        let outputs = OutputTypes::new(schema::costs::objects());
        let (parsed, known) = (ParseCache::new(DOCUMENT_BYTES), KnownRequests::default());
        Self { limits, types, outputs, settings, parsed, known }
    }

    /// The use cases that plans call.
    pub(in crate::inbound::graphql) const fn plans(&self) -> Option<&Jobs> {
        self.settings.plans.as_ref()
    }

    /// The limits of a document.
    pub(in crate::inbound::graphql) const fn limits(&self) -> &DocumentLimits {
        &self.limits
    }

    /// The limits of one client.
    pub(in crate::inbound::graphql) const fn client_limits(&self) -> &ClientLimits {
        &self.settings.clients
    }

    /// The memory of answers.
    pub(in crate::inbound::graphql) const fn memory(&self) -> &AnswerMemory {
        &self.settings.memory
    }

    /// Checks that each document of the operator's manifest is within the limits of a document.
    ///
    /// # Errors
    /// Returns the id of one that is not, and why.
    pub(in crate::inbound::graphql) fn check_listed(&self) -> Result<(), String> {
        for (id, text) in self.settings.documents.listed() {
            if let Err(refusal) = self.document(text) {
                return Err(format!("the document \"{id}\" is not valid: {}", refusal.message()));
            }
        }
        Ok(())
    }

    /// Runs all checks before the engine: the same for every transport.
    ///
    /// `permits` checks the type of the operation, which the transport may restrict. With `request`, its text, an equal
    /// request is known from then on; see [`Self::prepare_known`].
    ///
    /// # Errors
    /// Returns an error if the document is unknown or not allowed, a limit is exceeded, the document does not parse, no
    /// operation is selected or it is not permitted, or a variable does not coerce.
    pub(in crate::inbound::graphql) fn prepare(
        &self,
        parameters: GraphqlRequest,
        request: Option<RequestText<'_>>,
        principal: Principal,
        permits: impl FnOnce(OperationType) -> Result<(), HttpRefusal>,
    ) -> Result<PreparedOperation, HttpRefusal> {
        let ResolvedDocument { text, learn } = self.settings.documents.resolve(parameters.document)?;
        let (document, fresh) = self.document(&text)?;
        let (operation, definition) =
            OperationInfo::select(&document.executable, parameters.operation_name.as_deref())?;
        permits(operation.kind)?;
        let span = operation.span(document.hash());
        let checked = self.check(&operation, &document, definition, &parameters.variables, &principal);
        let (values, watching) = checked.inspect_err(|refusal| trace::fail(&span, refusal.kind().code()))?;
        let memory = self.settings.memory.of(&principal);
        let cpu = self.settings.cpu.gate(&principal, values);

        // a document that is not cached is validated by the engine first
        let plan = match fresh {
            None => self.plan(&document, &operation, &parameters.variables),
            Some(_) => None,
        };
        let variables = parameters.variables;
        // one that registers its document does so each time
        if let (Some(request), Some(PreparedPlan::Query(query)), None) = (request, &plan, learn) {
            let operation = operation.clone();
            self.known.keep(KnownRequest::new(request, &document, query, operation, &variables, values));
        }
        let fresh = match (fresh, learn) {
            (Some(tokens), learn) => {
                Some(Box::new(UncachedDocument { tokens, document: Arc::clone(&document), learn }))
            }
            (None, Some(hash)) => {
                self.settings.documents.register(hash, &text);
                None
            }
            (None, None) => None,
        };
        Ok(PreparedOperation {
            principal,
            variables: OperationVariables::Parsed(variables),
            operation,
            document,
            plan,
            fresh,
            watching,
            values,
            memory,
            cpu,
            span,
            last_event_id: None,
        })
    }

    /// The same for a request of which an equal one was prepared before; `None` if none is known.
    ///
    /// # Errors
    /// Those that do not depend on the request alone.
    pub(in crate::inbound::graphql) fn prepare_known(
        &self,
        text: RequestText<'_>,
        principal: &Principal,
        permits: impl FnOnce(OperationType) -> Result<(), HttpRefusal>,
    ) -> Option<Result<PreparedOperation, HttpRefusal>> {
        let known = self.known.get(text)?;
        let (document, query) = known.query()?;
        if document.is_reported_use() {
            // else a document that is only found here would age out of the caches of texts
            self.parsed.get(document.text());
            self.settings.documents.used(document.hash());
        }
        if let Err(refusal) = permits(known.operation.kind) {
            return Some(Err(refusal));
        }
        let span = known.operation.span(document.hash());
        Some(Ok(PreparedOperation {
            memory: self.settings.memory.of(principal),
            cpu: self.settings.cpu.gate(principal, known.values),
            principal: principal.clone(),
            operation: known.operation.clone(),
            document,
            plan: Some(PreparedPlan::Query(query)),
            fresh: None,
            watching: None,
            values: known.values,
            variables: OperationVariables::Known(known),
            span,
            last_event_id: None,
        }))
    }

    /// Checks an operation with its variables. Returns the most values of its answer, and the permit of a subscription.
    fn check(
        &self,
        operation: &OperationInfo,
        document: &ParsedDocument,
        definition: &OperationDefinition,
        variables: &Variables,
        principal: &Principal,
    ) -> Result<(u64, Option<RequestPermit>), HttpRefusal> {
        self.types.check(definition, variables)?;
        let OperationCosts { calls, values } =
            document.costs(operation.name.as_deref(), definition, variables, || {
                let document = &document.executable;
                // an operation without variables was checked with its document
                if !definition.variable_definitions.is_empty() {
                    self.types.check_positions(document, definition, variables)?;
                }
                let calls = self.limits.check_cost(&self.types, document, definition, variables)?;
                let values = self.limits.check_answer_cost(&self.types, document, definition, variables)?;
                Ok(OperationCosts { calls, values })
            })?;
        let watching = match operation.kind {
            OperationType::Subscription => Some(self.settings.clients.watch(principal, calls)?),
            OperationType::Query | OperationType::Mutation => None,
        };
        Ok((values, watching))
    }

    /// Whether the document of a text is cached.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn has_cached(&self, text: &str) -> bool {
        self.parsed.get(text).is_some()
    }

    /// The plan of an operation of a valid document; `None` if the engine must execute it.
    pub(in crate::inbound::graphql) fn plan(
        &self,
        document: &ParsedDocument,
        operation: &OperationInfo,
        variables: &Variables,
    ) -> Option<PreparedPlan> {
        self.settings.plans.as_ref()?;
        match document.plan(&self.types, &self.outputs, operation.name.as_deref(), variables)? {
            OperationPlan::Query(plan) => {
                let calls = plan.bind(variables)?;
                Some(PreparedPlan::Query(BoundQuery { plan, calls }))
            }
            OperationPlan::Subscription(plan) => Some(PreparedPlan::Subscription(plan)),
        }
    }

    /// Caches a document that the engine has validated.
    pub(in crate::inbound::graphql) fn keep(&self, fresh: UncachedDocument) {
        if let Some(hash) = fresh.learn {
            self.settings.documents.register(hash, fresh.document.text());
        }
        self.parsed.keep(fresh.tokens, fresh.document);
    }

    /// Returns the document of a text, and the number of its tokens if it was not cached.
    fn document(&self, text: &str) -> Result<(Arc<ParsedDocument>, Option<usize>), HttpRefusal> {
        if let Some(held) = self.parsed.get(text) {
            return Ok((held, None));
        }
        let tokens = self.limits.check_text(text)?;
        let document = parse_query(text).map_err(|error| unparsable(&error))?;
        self.limits.check_shape(&document)?;
        self.types.check_declared(&document)?;
        self.types.check_constant(&document)?;
        Ok((Arc::new(ParsedDocument::new(document, text, tokens)), Some(tokens)))
    }
}

/// Formats a parser error in one line; the parser's own text is a drawing that repeats the source. Some parser errors
/// are validation errors: no operation, or two of one name.
fn unparsable(error: &parser::Error) -> HttpRefusal {
    let at: Vec<_> = error.positions().collect();
    let text = error.to_string();
    let description = text.lines().last().unwrap_or_default().trim_start_matches([' ', '=']);
    if !matches!(error, parser::Error::Syntax { .. } | parser::Error::RecursionLimitExceeded) {
        return HttpRefusal::new(RefusalKind::DocumentInvalid, description.to_owned()).at(at);
    }
    let description = description.replace('_', " ");
    let message = match at.first() {
        Some(at) => {
            format!("syntax error in the document at line {}, column {}: {description}", at.line, at.column)
        }
        None => format!("syntax error in the document: {description}"),
    };
    HttpRefusal::new(RefusalKind::DocumentUnparsable, message).at(at)
}
