//! The results of one operation, in the order in which they occur: by its plan where it has one, else by the engine. Not
//! here: their serialization, which waits for the transport.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_graphql::{Pos, Request as EngineRequest, Response as GraphqlResponse};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::delivery_span::DeliverySpan;
use super::endpoint::GraphqlEndpoint;
use super::response::was_executed;
use super::shared_updates::{EncodedUpdate, UpdateKey};
use crate::domain::principal::Principal;
use crate::inbound::answer_limits::answer_memory::{AnswerReservation, ClientMemory};
use crate::inbound::graphql::document::admission::{PreparedPlan, engine_request};
use crate::inbound::graphql::document::known_requests::OperationVariables;
use crate::inbound::graphql::document::operation::OperationInfo;
use crate::inbound::graphql::plan::document::ParsedDocument;
use crate::inbound::graphql::plan::query::PlannedAnswer;
use crate::inbound::graphql::plan::subscription::{RootUpdate, SubscriptionPlan};
use crate::inbound::graphql::plan::validation::ValidateOnly;
use crate::inbound::graphql::schema::subscription::LastEventId;
use crate::jobs::Jobs;
use crate::jobs::watch::{FeedContent, FeedUpdate};
use crate::telemetry::trace;

/// One result of an operation.
pub(super) enum OperationResult {
    /// A subscription has begun: its document is valid.
    Begun,
    /// A response of the engine; that of a subscription with its reservation.
    Engine(GraphqlResponse, Option<Arc<AnswerReservation>>),
    /// The answer to a query, by its plan.
    Planned(PlannedAnswer),
    /// An update of a subscription, by its plan.
    Update(UpdateAnswer),
}

/// The answer for one update.
pub(super) struct UpdateAnswer {
    pub(super) encoded: Arc<EncodedUpdate>,
    pub(super) reservation: Arc<AnswerReservation>,
}

/// What an operation is executed with.
pub(super) struct OperationRequest {
    pub(super) principal: Principal,
    pub(super) variables: OperationVariables,
    pub(super) operation: OperationInfo,
    pub(super) document: Arc<ParsedDocument>,
    pub(super) plan: Option<PreparedPlan>,
    /// The id of the last event that the client received.
    pub(super) last_event_id: Option<LastEventId>,
}

impl OperationRequest {
    fn for_engine(&self) -> EngineRequest {
        let request = engine_request(&self.document, &self.operation, &self.variables, &self.principal);
        match &self.last_event_id {
            Some(last) => request.data(last.clone()),
            None => request,
        }
    }
}

/// The results of an operation. Those of one that has started are polled without the future that started it, whose memory
/// is released: a subscription lasts for hours.
pub(super) enum OperationResults {
    Starting(BoxFuture<'static, StartedResults>),
    Started(BoxStream<'static, OperationResult>),
}

/// The results of an operation that has started: the first one, if it is known already, and the others.
type StartedResults = (Option<OperationResult>, BoxStream<'static, OperationResult>);

impl OperationResults {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<OperationResult>> {
        loop {
            match self {
                Self::Starting(start) => {
                    let (first, others) = ready!(start.as_mut().poll(cx));
                    *self = Self::Started(others);
                    if first.is_some() {
                        return Poll::Ready(first);
                    }
                }
                Self::Started(results) => {
                    let result = ready!(results.as_mut().poll_next(cx));
                    if result.is_none() {
                        // not every stream may be polled again
                        *self = Self::Started(stream::empty().boxed());
                    }
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// The one result of a query or a mutation.
pub(super) fn of_query(endpoint: GraphqlEndpoint, request: OperationRequest) -> OperationResults {
    let result = async move {
        let OperationRequest { plan, principal, .. } = &request;
        let result = match endpoint.execute_plan(plan.as_ref(), principal).await {
            Some(answer) => OperationResult::Planned(answer),
            None => OperationResult::Engine(endpoint.execute(request.for_engine()).await, None),
        };
        (Some(result), stream::empty().boxed())
    };
    OperationResults::Starting(result.boxed())
}

/// The results of a subscription. `is_fresh`: its document was not validated before.
pub(super) fn of_subscription(
    endpoint: GraphqlEndpoint,
    request: OperationRequest,
    is_fresh: bool,
    memory: ClientMemory,
    values: u64,
) -> OperationResults {
    let start = async move {
        let Some(jobs) = endpoint.plan_jobs().cloned() else {
            return (None, by_engine(&endpoint, &request, memory));
        };
        if is_fresh {
            let mut validated = endpoint.execute_stream(request.for_engine().data(ValidateOnly));
            if let Some(response) = validated.next().await
                && !was_executed(&response)
            {
                return (Some(OperationResult::Engine(response, None)), stream::empty().boxed());
            }
        }
        let updates = {
            let variables = request.variables.get();
            let plan = match request.plan.clone() {
                None => endpoint.plan(&request.document, &request.operation, &variables),
                plan => plan,
            };
            let client = endpoint.answer_client(&jobs, &request.principal);
            if let Some(PreparedPlan::Subscription(plan)) = plan {
                let subscription = trace::TraceContext::here().to_link();
                let deliver = |root| {
                    let delivery = UpdateDelivery {
                        endpoint: endpoint.clone(),
                        plan: Arc::clone(&plan),
                        root,
                        jobs: jobs.clone(),
                        principal: request.principal.clone(),
                        subscription: subscription.clone(),
                        memory: memory.clone(),
                        values,
                    };
                    move |update| delivery.deliver(update)
                };
                plan.start(client, &variables, request.last_event_id.as_ref(), deliver)
            } else {
                None
            }
        };
        let Some(mut updates) = updates else { return (None, by_engine(&endpoint, &request, memory)) };
        let updates = match (updates.pop(), updates.is_empty()) {
            (Some(only), true) => only,
            (last, _) => stream::select_all(updates.into_iter().chain(last)).boxed(),
        };
        (Some(OperationResult::Begun), updates)
    };
    OperationResults::Starting(start.boxed())
}

/// The responses of the engine to a subscription, each with a reservation. The subscription has begun when the engine
/// waits for the first time, since it validates before.
fn by_engine(
    endpoint: &GraphqlEndpoint,
    request: &OperationRequest,
    memory: ClientMemory,
) -> BoxStream<'static, OperationResult> {
    let mut responses = endpoint.execute_stream(request.for_engine());
    let mut reservation: Option<Arc<AnswerReservation>> = None;
    let mut has_begun = false;
    stream::poll_fn(move |cx| {
        let meter = reservation.get_or_insert_with(|| memory.begin_update(0));
        let polled = meter.within(|| responses.poll_next_unpin(cx));
        if polled.is_pending() && !has_begun {
            has_begun = true;
            return Poll::Ready(Some(OperationResult::Begun));
        }
        has_begun = true;
        polled.map(|response| {
            let (response, meter) = (response?, reservation.take()?);
            let refusal = meter.refusal();
            let response = refusal.map_or(response, |refusal| {
                let error = async_graphql::Error::from(refusal).into_server_error(Pos::default());
                GraphqlResponse::from_errors(vec![error])
            });
            Some(OperationResult::Engine(response, Some(meter)))
        })
    })
    .boxed()
}

/// Delivers the updates of one root field by its plan.
struct UpdateDelivery {
    endpoint: GraphqlEndpoint,
    plan: Arc<SubscriptionPlan>,
    root: usize,
    jobs: Jobs,
    principal: Principal,
    /// The trace of the subscription.
    subscription: Option<Box<opentelemetry::trace::SpanContext>>,
    memory: ClientMemory,
    /// The most values of an update.
    values: u64,
}

impl UpdateDelivery {
    /// Encodes an update, or takes the bytes of a subscriber to which it was delivered before; under the span of its
    /// delivery.
    fn deliver(&self, update: RootUpdate) -> OperationResult {
        let span = match &update {
            RootUpdate::Watch(update) => DeliverySpan::of(update),
            RootUpdate::Feed(FeedUpdate { content: FeedContent::Change(update), .. }) => {
                DeliverySpan::of(update)
            }
            RootUpdate::Feed(FeedUpdate { content: FeedContent::Start(_), .. }) => None,
        };
        let span = span.map(|delivery| delivery.span(self.subscription.as_deref()));
        let _entered = span.as_ref().map(|span| span.enter());
        let shared = self.endpoint.shared_updates();
        if let RootUpdate::Watch(update) = &update
            && let Some(encoded) = shared.get(&self.plan, self.root, update)
        {
            let reservation = self.memory.begin_shared(encoded.json().len());
            return OperationResult::Update(UpdateAnswer { encoded, reservation });
        }
        let (key, cursor) = match &update {
            RootUpdate::Watch(update) => (UpdateKey::new(&self.plan, self.root, update), None),
            RootUpdate::Feed(update) => (None, Some(update.cursor).filter(|_| self.plan.has_one_root())),
        };
        let reservation = self.memory.begin_update(self.values);
        let client = self.endpoint.answer_client(&self.jobs, &self.principal);
        let error = match self.plan.write(self.root, update, client, self.endpoint.memory().max_answer()) {
            Ok(written) => match reservation.admit(written.texts) {
                Ok(()) => {
                    let encoded = match cursor {
                        Some(cursor) => Arc::new(EncodedUpdate::new(written.json).at(cursor)),
                        None => shared.keep(key, written),
                    };
                    return OperationResult::Update(UpdateAnswer { encoded, reservation });
                }
                Err(refusal) => async_graphql::Error::from(refusal).into_server_error(Pos::default()),
            },
            Err(error) => error,
        };
        OperationResult::Engine(GraphqlResponse::from_errors(vec![error]), None)
    }
}
