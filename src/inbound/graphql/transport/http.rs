//! The handler of `/graphql`: GraphQL over HTTP (September 2026), POST and GET, and the dispatch to the streaming
//! transports. It authenticates before it reads, limits before it parses, and is independent of the schema. Every
//! transport calls `prepare`, so that limits apply to all. `docs/graphql-over-http.md` and `docs/streams.md` list each
//! decision.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::{Executor, Request as GraphqlRequest, Response as GraphqlResponse};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::Method;
use secrecy::SecretString;
use tokio::time::Instant;

use super::{event_stream, ws};
use crate::domain::principal::Principal;
use crate::inbound::answer_limits::answer_memory::{AnswerMemory, ClientMemory};
use crate::inbound::answer_limits::cpu_limiter::{CpuGate, CpuLimiter};
use crate::inbound::auth::authenticator::Authenticator;
use crate::inbound::client_limits::{ClientLimits, RequestPermit};
use crate::inbound::graphql::document::coercion::InputTypes;
use crate::inbound::graphql::document::limits::DocumentLimits;
use crate::inbound::graphql::document::operation::OperationInfo;
use crate::inbound::graphql::document::parse_cache::Documents;
use crate::inbound::graphql::document::persisted::{PersistedDocuments, ResolvedDocument};
use crate::inbound::graphql::execution::plan::UpdatePlans;
use crate::inbound::http::access_log::RequestFacts;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::peer::Peer;
use crate::inbound::streams::{StreamGuard, StreamLimitReached, StreamRegistry};
use crate::telemetry::{meters, trace};

pub(super) mod body;
mod negotiate;
pub(in crate::inbound::graphql) mod reply;

use negotiate::{ResponseForm, ResponseType};

/// The size of the cache of parsed documents, approximately, in bytes.
const DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

type Execute = dyn Fn(GraphqlRequest) -> BoxFuture<'static, GraphqlResponse> + Send + Sync;
type ExecuteStream = dyn Fn(GraphqlRequest) -> BoxStream<'static, GraphqlResponse> + Send + Sync;

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
}

/// The endpoint of one schema. A clone is cheap and shares the cached documents.
#[derive(Clone)]
pub struct GraphqlEndpoint(pub(in crate::inbound::graphql) Arc<EndpointState>);

pub(in crate::inbound::graphql) struct EndpointState {
    execute: Box<Execute>,
    pub(in crate::inbound::graphql) execute_stream: Box<ExecuteStream>,
    authenticator: Box<dyn Authenticator>,
    limits: DocumentLimits,
    admission: Admission,
    types: InputTypes,
    body_wait: Duration,
    documents: Documents,
    pub(in crate::inbound::graphql) plans: UpdatePlans,
    streams: StreamRegistry,
}

impl GraphqlEndpoint {
    /// An endpoint for a schema, whose input types are `types`.
    ///
    /// `authenticator` authenticates the bearer token of each request, or its absence, before anything else is read;
    /// its principal is passed to resolvers as request data, beside the [`OperationInfo`]. `body_wait` is the timeout
    /// for the request body. `streams` is the registry of the streams.
    pub fn new<E: Executor>(
        executor: E,
        types: InputTypes,
        authenticator: impl Authenticator + 'static,
        limits: DocumentLimits,
        admission: Admission,
        body_wait: Duration,
        streams: StreamRegistry,
    ) -> Self {
        let streaming = executor.clone();
        let execute = move |request| {
            let executor = executor.clone();
            async move { executor.execute(request).await }.boxed()
        };
        Self(Arc::new(EndpointState {
            execute: Box::new(execute),
            execute_stream: Box::new(move |request| streaming.execute_stream(request, None)),
            authenticator: Box::new(authenticator),
            limits,
            admission,
            types,
            body_wait,
            documents: Documents::new(DOCUMENT_BYTES),
            plans: UpdatePlans::default(),
            streams,
        }))
    }

    /// Checks that each document of the operator's manifest is within the limits of a document.
    ///
    /// # Errors
    /// Returns the id of one that is not, and why.
    pub fn check_listed(&self) -> Result<(), String> {
        for (id, text) in self.0.admission.documents.listed() {
            if let Err(refusal) = self.0.document(text) {
                return Err(format!("the document \"{id}\" is not valid: {}", refusal.message()));
            }
        }
        Ok(())
    }

    /// The registry of this endpoint's streams.
    pub(in crate::inbound::graphql) fn streams(&self) -> &StreamRegistry {
        &self.0.streams
    }

    /// The memory of answers.
    pub(in crate::inbound) fn memory(&self) -> &AnswerMemory {
        &self.0.admission.memory
    }

    /// The limits of one client.
    pub(in crate::inbound::graphql) fn client_limits(&self) -> &ClientLimits {
        &self.0.admission.clients
    }

    /// The number of plans in use.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn plans(&self) -> usize {
        self.0.plans.in_use()
    }

    /// Returns the client of a token, or of none.
    pub(in crate::inbound::graphql) fn authenticate(
        &self,
        presented: Option<&SecretString>,
    ) -> Result<Principal, HttpRefusal> {
        self.0.authenticator.authenticate(presented)
    }

    /// Admits a stream of a client, for as long as its credential is valid.
    ///
    /// # Errors
    /// Returns an error if the client has reached its limit, or its credential was revoked since it was authenticated.
    pub(in crate::inbound::graphql) fn admit_stream(
        &self,
        guard: &mut StreamGuard,
        principal: &Principal,
    ) -> Result<(), AdmissionError> {
        guard.claim(principal, self.0.authenticator.expires_in(principal)).map_err(AdmissionError::Full)?;
        // checked after the stream is registered: a later revocation finds it in the registry
        if self.0.authenticator.is_valid(principal) { Ok(()) } else { Err(AdmissionError::Revoked) }
    }

    /// The route: every method, so that a wrong one gets a response of the same form.
    pub fn route<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        any(serve).with_state(self)
    }
}

impl fmt::Debug for GraphqlEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlEndpoint").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

/// Why a stream is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum AdmissionError {
    /// The client has reached its limit of streams.
    Full(StreamLimitReached),
    /// Its credential is not valid any more.
    Revoked,
}

async fn serve(State(endpoint): State<GraphqlEndpoint>, request: Request) -> Response {
    let answer = if ws::is_handshake(&request) {
        ws::upgrade(&endpoint, request)
    } else {
        endpoint.answer(request).await
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// An operation that passed every check before the engine.
pub(in crate::inbound::graphql) struct PreparedOperation {
    pub(in crate::inbound::graphql) request: GraphqlRequest,
    pub(in crate::inbound::graphql) operation: OperationInfo,
    pub(in crate::inbound::graphql) document: Arc<ExecutableDocument>,
    pub(in crate::inbound::graphql) fresh: Option<Box<UncachedDocument>>,
    /// The permit for the watched jobs of a subscription.
    pub(in crate::inbound::graphql) watching: Option<RequestPermit>,
    /// The most values of an answer.
    pub(in crate::inbound::graphql) values: u64,
    /// The memory for its client.
    pub(in crate::inbound::graphql) memory: ClientMemory,
    /// The permits for each step of a large answer.
    pub(in crate::inbound::graphql) cpu: Option<CpuGate>,
    pub(in crate::inbound::graphql) span: trace::SpanGuard,
}

/// A document to be cached once the engine has validated it.
pub(in crate::inbound::graphql) struct UncachedDocument {
    text: String,
    tokens: usize,
    document: Arc<ExecutableDocument>,
    learn: Option<[u8; 32]>,
}

impl GraphqlEndpoint {
    async fn answer(&self, request: Request) -> Result<Response, HttpRefusal> {
        let verb = RequestMethod::of(request.method())?;
        let principal =
            self.authenticate(crate::inbound::auth::bearer::token(request.headers())?.as_ref())?;
        RequestFacts::client(request.extensions(), principal.name());
        // held until the answer, or until the stream that has its own
        let _place = self.client_limits().admit(&principal)?;
        let accepted = negotiate::accepted(request.headers())?;
        let (parts, body) = request.into_parts();
        let parameters = match verb {
            RequestMethod::Get => body::GraphqlRequest::from_url(parts.uri.query().unwrap_or_default())?,
            RequestMethod::Post => {
                negotiate::check_content_type(&parts.headers)?;
                body::GraphqlRequest::from_json(&body::read(body, self.0.body_wait).await?)?
            }
        };
        let client = principal.clone();
        let prepared = self.prepare(parameters, principal, |kind| verb.permits(kind, accepted.streams()));
        let operation = prepared.as_ref().ok().map(|prepared| prepared.operation.kind);
        if let Some(kind) = operation {
            RequestFacts::operation(&parts.extensions, kind);
        }
        match (accepted.form(operation), prepared) {
            (ResponseForm::Stream(transport), prepared) => {
                let secure = parts.extensions.get::<Peer>().and_then(|peer| peer.secure);
                self.streams().settings().origins.check(&parts.headers, secure)?;
                // a wrong method is an error of the request, not of the document
                let prepared = match prepared {
                    Err(refusal) if refusal.kind() == RefusalKind::MethodNotAllowed => return Err(refusal),
                    prepared => prepared,
                };
                event_stream::open(self, transport, &client, prepared)
            }
            (ResponseForm::Single(media), prepared) => {
                let mut prepared = prepared?;
                match prepared.cpu.take() {
                    None => Ok(self.once(prepared, media).await),
                    Some(gate) => Ok(gate.around(self.once(prepared, media)).boxed().await),
                }
            }
        }
    }

    async fn once(&self, prepared: PreparedOperation, media: ResponseType) -> Response {
        let PreparedOperation { request, operation, fresh, values, memory, span, .. } = prepared;
        // here, so that a large answer that waits for its permit reserves none
        let meter = match memory.begin(values) {
            Ok(meter) => meter,
            Err(refusal) => return refusal.into_response(),
        };
        let began = Instant::now();
        let executing = Arc::clone(&meter).around((self.0.execute)(request));
        let response = span.context().hold(executing).await;
        meters::operation(operation.word(), "http");
        meters::operation_took(operation.word(), began.elapsed());
        let executed = reply::was_executed(&response);
        if executed && let Some(fresh) = fresh {
            self.0.keep(*fresh);
        }
        let mut response: http::Response<Body> = match meter.refusal() {
            None => reply::render(response, executed, media, meter),
            Some(refusal) => refusal.into_response(),
        };
        response.extensions_mut().insert(operation);
        response
    }

    /// Runs all checks before the engine: the same for every transport.
    ///
    /// `permits` checks the type of the operation, which the transport may restrict.
    ///
    /// # Errors
    /// Returns an error if the document is unknown or not allowed, a limit is exceeded, the document does not parse, no
    /// operation is selected or it is not permitted, or a variable does not coerce.
    pub(in crate::inbound::graphql) fn prepare(
        &self,
        parameters: body::GraphqlRequest,
        principal: Principal,
        permits: impl FnOnce(OperationType) -> Result<(), HttpRefusal>,
    ) -> Result<PreparedOperation, HttpRefusal> {
        let ResolvedDocument { text, learn } = self.0.admission.documents.resolve(parameters.document)?;
        let (document, fresh) = self.0.document(&text)?;
        let (operation, definition) = OperationInfo::select(&document, parameters.operation_name.as_deref())?;
        permits(operation.kind)?;
        let span = operation.span(&text);
        self.0.types.check(definition, &parameters.variables)?;
        // an operation without variables was checked with its document
        if !definition.variable_definitions.is_empty() {
            self.0.types.check_positions(&document, definition, &parameters.variables)?;
        }
        let cost = self.0.limits.check_cost(&document, definition, &parameters.variables)?;
        let limits = &self.0.limits;
        let values = limits.check_answer_cost(&self.0.types, &document, definition, &parameters.variables)?;
        let watching = match operation.kind {
            OperationType::Subscription => Some(self.client_limits().watch(&principal, cost)?),
            OperationType::Query | OperationType::Mutation => None,
        };
        let memory = self.memory().of(&principal);
        let cpu = self.0.admission.cpu.gate(&principal, values);

        // the text stays here: the engine only needs the parsed document
        let mut request = GraphqlRequest::new("").variables(parameters.variables);
        request.operation_name.clone_from(&operation.name);
        request.set_parsed_query(ExecutableDocument::clone(&document));
        let request = request.data(principal).data(operation.clone());
        let fresh = match (fresh, learn) {
            (Some(tokens), learn) => {
                Some(Box::new(UncachedDocument { text, tokens, document: Arc::clone(&document), learn }))
            }
            (None, Some(hash)) => {
                self.0.admission.documents.register(hash, &text);
                None
            }
            (None, None) => None,
        };
        Ok(PreparedOperation { request, operation, document, fresh, watching, values, memory, cpu, span })
    }
}

impl EndpointState {
    pub(in crate::inbound::graphql) fn keep(&self, fresh: UncachedDocument) {
        self.documents.keep(&fresh.text, fresh.tokens, fresh.document);
        if let Some(hash) = fresh.learn {
            self.admission.documents.register(hash, &fresh.text);
        }
    }

    /// Returns the document of a text, and the number of its tokens if it was not cached.
    fn document(&self, text: &str) -> Result<(Arc<ExecutableDocument>, Option<usize>), HttpRefusal> {
        if let Some(held) = self.documents.get(text) {
            return Ok((held, None));
        }
        let tokens = self.limits.check_text(text)?;
        let document = parse_query(text).map_err(|error| reply::unparsable(&error))?;
        self.limits.check_shape(&document)?;
        self.types.check_declared(&document)?;
        self.types.check_constant(&document)?;
        Ok((Arc::new(document), Some(tokens)))
    }
}

/// The method of a request.
#[derive(Clone, Copy)]
enum RequestMethod {
    Get,
    Post,
}

impl RequestMethod {
    fn of(method: &Method) -> Result<Self, HttpRefusal> {
        match *method {
            // a HEAD is a GET whose body the server does not send
            Method::GET | Method::HEAD => Ok(Self::Get),
            Method::POST => Ok(Self::Post),
            _ => Err(HttpRefusal::method(
                "GET, HEAD, POST",
                "method not allowed; use POST, or GET for a query",
            )),
        }
    }

    fn permits(self, kind: OperationType, streams: bool) -> Result<(), HttpRefusal> {
        match (self, kind) {
            (_, OperationType::Query) | (Self::Post, OperationType::Mutation) => Ok(()),
            (_, OperationType::Subscription) if streams => Ok(()),
            (Self::Get, OperationType::Mutation) => {
                Err(HttpRefusal::method("POST", "mutations are not allowed over GET; use POST"))
            }
            (Self::Get, OperationType::Subscription) => Err(HttpRefusal::method(
                "POST",
                "subscriptions over GET need a stream; accept text/event-stream, or use a WebSocket",
            )),
            (Self::Post, OperationType::Subscription) => Err(HttpRefusal::new(
                RefusalKind::SubscriptionNeedsStream,
                "subscriptions need a stream; accept text/event-stream, or use a WebSocket",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
