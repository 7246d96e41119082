//! The endpoint of one schema: admits clients, streams and operations, and executes them by their plans or the engine. It
//! is independent of the transports, which call it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Executor, Request as EngineRequest, Response as EngineResponse, Variables};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::HeaderMap;
use secrecy::SecretString;

use super::shared_updates::SharedUpdates;
use crate::domain::principal::Principal;
use crate::inbound::answer_limits::answer_memory::AnswerMemory;
use crate::inbound::auth::authenticator::{self, Authenticator};
use crate::inbound::client_limits::ClientLimits;
use crate::inbound::graphql::document::admission::{
    Admission, OperationAdmission, PreparedOperation, PreparedPlan, UncachedDocument,
};
use crate::inbound::graphql::document::coercion::InputTypes;
use crate::inbound::graphql::document::limits::DocumentLimits;
use crate::inbound::graphql::document::operation::OperationInfo;
use crate::inbound::graphql::document::request::{GraphqlRequest, RequestText};
use crate::inbound::graphql::plan::document::ParsedDocument;
use crate::inbound::graphql::plan::query::{BoundQuery, PlannedAnswer, QueryScope};
use crate::inbound::graphql::plan::rendered::RenderedJobs;
use crate::inbound::graphql::plan::writer::AnswerClient;
use crate::inbound::http::error::HttpRefusal;
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::streams::{StreamGuard, StreamLimitReached, StreamRegistry};
use crate::jobs::Jobs;

type Execute = dyn Fn(EngineRequest) -> BoxFuture<'static, EngineResponse> + Send + Sync;
type ExecuteStream = dyn Fn(EngineRequest) -> BoxStream<'static, EngineResponse> + Send + Sync;

/// The endpoint of one schema. A clone is cheap and shares the cached documents.
#[derive(Clone)]
pub struct GraphqlEndpoint(Arc<EndpointState>);

struct EndpointState {
    execute: Box<Execute>,
    execute_stream: Box<ExecuteStream>,
    authenticator: Box<dyn Authenticator>,
    admission: OperationAdmission,
    body_wait: Duration,
    planned: AtomicU64,
    updates: SharedUpdates,
    rendered: RenderedJobs,
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
            admission: OperationAdmission::new(limits, types, admission),
            body_wait,
            planned: AtomicU64::new(0),
            updates: SharedUpdates::default(),
            rendered: RenderedJobs::default(),
            streams,
        }))
    }

    /// Checks that each document of the operator's manifest is within the limits of a document.
    ///
    /// # Errors
    /// Returns the id of one that is not, and why.
    pub fn check_listed(&self) -> Result<(), String> {
        self.0.admission.check_listed()
    }

    /// The registry of this endpoint's streams.
    pub(in crate::inbound::graphql) fn streams(&self) -> &StreamRegistry {
        &self.0.streams
    }

    /// The memory of answers.
    pub(in crate::inbound) fn memory(&self) -> &AnswerMemory {
        self.0.admission.memory()
    }

    /// The limits of one client.
    pub(in crate::inbound::graphql) fn client_limits(&self) -> &ClientLimits {
        self.0.admission.client_limits()
    }

    /// Returns the client of a token, or of none.
    pub(in crate::inbound::graphql) fn authenticate(
        &self,
        presented: Option<&SecretString>,
    ) -> Result<Principal, HttpRefusal> {
        self.0.authenticator.authenticate(presented)
    }

    /// Returns the client of a request; see [`authenticator::authenticate_request`].
    pub(in crate::inbound::graphql) fn authenticate_request(
        &self,
        headers: &HeaderMap,
        facts: &RequestFacts,
    ) -> Result<Principal, HttpRefusal> {
        authenticator::authenticate_request(&*self.0.authenticator, headers, facts)
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

    /// Runs all checks before the engine; see [`OperationAdmission::prepare`].
    ///
    /// # Errors
    /// Returns an error if a check fails.
    pub(in crate::inbound::graphql) fn prepare(
        &self,
        parameters: GraphqlRequest,
        request: Option<RequestText<'_>>,
        principal: Principal,
        permits: impl FnOnce(OperationType) -> Result<(), HttpRefusal>,
    ) -> Result<PreparedOperation, HttpRefusal> {
        self.0.admission.prepare(parameters, request, principal, permits)
    }

    /// The same for a request of which an equal one was prepared before; see [`OperationAdmission::prepare_known`].
    pub(in crate::inbound::graphql) fn prepare_known(
        &self,
        text: RequestText<'_>,
        principal: &Principal,
        permits: impl FnOnce(OperationType) -> Result<(), HttpRefusal>,
    ) -> Option<Result<PreparedOperation, HttpRefusal>> {
        self.0.admission.prepare_known(text, principal, permits)
    }

    /// Caches a document that the engine has validated.
    pub(in crate::inbound::graphql) fn keep(&self, fresh: UncachedDocument) {
        self.0.admission.keep(fresh);
    }

    /// Executes a query by its plan; `None` if it has none, or needs the engine after all.
    pub(in crate::inbound::graphql) async fn execute_plan(
        &self,
        plan: Option<&PreparedPlan>,
        principal: &Principal,
    ) -> Option<PlannedAnswer> {
        let (query, scope) = self.planned_query(plan, principal)?;
        let answer = query.plan.execute(&query.calls, scope).await;
        self.0.planned.fetch_add(u64::from(answer.is_some()), Ordering::Relaxed);
        answer
    }

    /// The same without waiting; `None` if it has to wait, too.
    pub(in crate::inbound::graphql) fn execute_held(
        &self,
        plan: Option<&PreparedPlan>,
        principal: &Principal,
    ) -> Option<PlannedAnswer> {
        let (query, scope) = self.planned_query(plan, principal)?;
        let answer = query.plan.execute_held(&query.calls, scope);
        self.0.planned.fetch_add(u64::from(answer.is_some()), Ordering::Relaxed);
        answer
    }

    /// The query of a plan, and what it is executed with.
    fn planned_query<'a>(
        &'a self,
        plan: Option<&'a PreparedPlan>,
        principal: &'a Principal,
    ) -> Option<(&'a BoundQuery, QueryScope<'a>)> {
        let (Some(PreparedPlan::Query(query)), Some(jobs)) = (plan, self.0.admission.plans()) else {
            return None;
        };
        let (client, max) = (self.answer_client(jobs, principal), self.memory().max_answer());
        Some((query, QueryScope { client, max }))
    }

    /// The use cases that plans call.
    pub(in crate::inbound::graphql) fn plan_jobs(&self) -> Option<&Jobs> {
        self.0.admission.plans()
    }

    /// A client of answers.
    pub(super) fn answer_client<'a>(&'a self, jobs: &'a Jobs, principal: &'a Principal) -> AnswerClient<'a> {
        AnswerClient { jobs, principal, rendered: &self.0.rendered }
    }

    /// The updates that subscribers share.
    pub(super) fn shared_updates(&self) -> &SharedUpdates {
        &self.0.updates
    }

    /// The plan of an operation of a valid document; see [`OperationAdmission::plan`].
    pub(in crate::inbound::graphql) fn plan(
        &self,
        document: &ParsedDocument,
        operation: &OperationInfo,
        variables: &Variables,
    ) -> Option<PreparedPlan> {
        self.0.admission.plan(document, operation, variables)
    }

    /// How many queries were executed by their plan.
    pub fn planned(&self) -> u64 {
        self.0.planned.load(Ordering::Relaxed)
    }

    /// Executes a query or a mutation.
    pub(in crate::inbound::graphql) fn execute(
        &self,
        request: EngineRequest,
    ) -> BoxFuture<'static, EngineResponse> {
        (self.0.execute)(request)
    }

    /// Executes an operation of any type.
    pub(in crate::inbound::graphql) fn execute_stream(
        &self,
        request: EngineRequest,
    ) -> BoxStream<'static, EngineResponse> {
        (self.0.execute_stream)(request)
    }

    /// Whether the document of a text is cached.
    #[cfg(test)]
    pub(in crate::inbound::graphql) fn has_cached(&self, text: &str) -> bool {
        self.0.admission.has_cached(text)
    }

    /// The timeout for the request body.
    pub(in crate::inbound::graphql) fn body_wait(&self) -> Duration {
        self.0.body_wait
    }
}

impl fmt::Debug for GraphqlEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphqlEndpoint").field("limits", self.0.admission.limits()).finish_non_exhaustive()
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
