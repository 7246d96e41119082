//! The answers to one operation, one after the other, serialized only when the transport is ready for them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_graphql::Response as GraphqlResponse;
use async_graphql::parser::types::OperationType;
use futures_util::stream::Stream;
use tracing::Span;

use super::endpoint::GraphqlEndpoint;
use super::response::{self, was_executed};
use super::results::{self, OperationRequest, OperationResult, OperationResults, UpdateAnswer};
use super::shared_updates::EncodedUpdate;
use crate::inbound::answer_limits::answer_memory::{AnswerReservation, ClientMemory};
use crate::inbound::answer_limits::cpu_limiter::CpuGate;
use crate::inbound::client_limits::RequestPermit;
use crate::inbound::graphql::document::admission::{PreparedOperation, UncachedDocument};
use crate::inbound::graphql::plan::query::PlannedAnswer;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::streams::Transport;
use crate::telemetry::{meters, trace};

/// One answer, as the JSON that every transport puts into its own frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum GraphqlAnswer {
    /// A GraphQL response.
    Result(Vec<u8>),
    /// The same for an update, which other subscribers may receive too.
    Update(Arc<EncodedUpdate>),
    /// Nothing was executed: a list of errors. The last answer.
    Refused(Vec<u8>),
}

impl GraphqlAnswer {
    /// The answer to an operation that did not reach the engine.
    pub(in crate::inbound::graphql) fn refused(refusal: HttpRefusal) -> Self {
        Self::Refused(serde_json::Value::from(vec![refusal.into_json()]).to_string().into_bytes())
    }

    /// Whether nothing was executed.
    pub(in crate::inbound::graphql) const fn is_refusal(&self) -> bool {
        match self {
            Self::Result(_) | Self::Update(_) => false,
            Self::Refused(_) => true,
        }
    }

    /// The answer as a GraphQL response.
    pub(in crate::inbound::graphql) fn into_response(self) -> Vec<u8> {
        match self {
            Self::Result(json) => json,
            Self::Update(update) => update.json().as_bytes().to_vec(),
            Self::Refused(errors) => [b"{\"errors\":", errors.as_slice(), b"}"].concat(),
        }
    }
}

/// The answers to one operation. Ends with the last one; dropping it ends the operation.
pub(in crate::inbound::graphql) struct AnswerStream {
    endpoint: GraphqlEndpoint,
    results: OperationResults,
    /// The document, until it has been validated.
    fresh: Option<Box<UncachedDocument>>,
    first: bool,
    is_subscription: bool,
    /// The source of the answer's reservation, of a query or a mutation that has not begun.
    begins: Option<(ClientMemory, u64)>,
    /// The reservation of the answer, until it is serialized.
    meter: Option<Arc<AnswerReservation>>,
    /// The reservation of the last serialized answer, until the next one is requested.
    sending: Option<Arc<AnswerReservation>>,
    /// The permits for each step of a large answer.
    cpu: Option<CpuGate>,
    _watching: Option<RequestPermit>,
    /// The span of the operation, until it has begun: a subscription may continue for hours after that.
    span: Option<Box<Span>>,
}

impl GraphqlEndpoint {
    /// Executes an operation of any type. Nothing runs until the first answer is requested.
    pub(in crate::inbound::graphql) fn run(
        &self,
        prepared: PreparedOperation,
        transport: Transport,
    ) -> AnswerStream {
        meters::operation(prepared.operation.word(), transport.word());
        let PreparedOperation { principal, variables, operation, document, plan, .. } = prepared;
        let PreparedOperation { fresh, watching, values, memory, cpu, span, last_event_id, .. } = prepared;
        let is_subscription = operation.kind == OperationType::Subscription;
        let request = OperationRequest { principal, variables, operation, document, plan, last_event_id };
        let (results, begins) = if is_subscription {
            (results::of_subscription(self.clone(), request, fresh.is_some(), memory, values), None)
        } else {
            (results::of_query(self.clone(), request), Some((memory, values)))
        };
        AnswerStream {
            endpoint: self.clone(),
            results,
            fresh,
            first: true,
            is_subscription,
            begins,
            meter: None,
            sending: None,
            cpu,
            _watching: watching,
            span: trace::boxed(span),
        }
    }
}

impl AnswerStream {
    /// At this point it is known whether the document is valid.
    fn begun(&mut self, executed: bool) {
        self.first = false;
        if let Some(fresh) = self.fresh.take()
            && executed
        {
            self.endpoint.keep(*fresh);
        }
    }

    /// Ends the span of the operation with its first result.
    fn end_span(&mut self, result: Option<&OperationResult>) {
        let Some(span) = self.span.take() else { return };
        let code = result.and_then(|result| match result {
            OperationResult::Begun | OperationResult::Update(_) => None,
            OperationResult::Planned(answer) => response::first_code(&answer.errors, true),
            OperationResult::Engine(engine, _) => {
                response::first_code(&engine.errors, !self.first || was_executed(engine))
            }
        });
        if let Some(code) = code {
            trace::fail(&span, code);
        }
    }

    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Option<OperationResult>> {
        let polled = {
            let _entered = self.span.as_ref().map(|span| span.enter());
            let results = &mut self.results;
            match &self.meter {
                Some(meter) => meter.within(|| results.poll_next(cx)),
                None => results.poll_next(cx),
            }
        };
        if let Poll::Ready(result) = &polled {
            self.end_span(result.as_ref());
        }
        polled
    }

    fn write(&mut self, result: OperationResult) -> Option<GraphqlAnswer> {
        match result {
            OperationResult::Begun => {
                self.begun(true);
                None
            }
            OperationResult::Engine(response, update) => Some(self.write_engine(response, update)),
            OperationResult::Planned(PlannedAnswer { written, errors }) => {
                self.begun(true);
                let meter = self.meter.take();
                if let Some(Err(refusal)) = meter.as_ref().map(|meter| meter.admit(written.texts)) {
                    return Some(GraphqlAnswer::refused(refusal));
                }
                Some(self.send(response::with_errors(written.json, errors).into_bytes(), meter))
            }
            OperationResult::Update(answer) => Some(self.send_update(answer)),
        }
    }

    fn write_engine(
        &mut self,
        mut response: GraphqlResponse,
        update: Option<Arc<AnswerReservation>>,
    ) -> GraphqlAnswer {
        // the engine rejects an operation only before it begins
        let executed = !self.first || was_executed(&response);
        self.begun(executed);
        // of a query or a mutation; an update that does not fit is rejected where it is built
        let meter = self.meter.take();
        if let Some(refusal) = meter.as_ref().and_then(|meter| meter.refusal()) {
            return GraphqlAnswer::refused(refusal);
        }
        response::finish(&mut response, executed);
        if !executed {
            return serde_json::to_vec(&response.errors).map_or_else(
                |_| {
                    GraphqlAnswer::refused(HttpRefusal::new(
                        RefusalKind::Internal,
                        "the response could not be encoded as JSON",
                    ))
                },
                GraphqlAnswer::Refused,
            );
        }
        let memory = self.endpoint.memory();
        match response::to_json(&response, true, memory) {
            Some(json) => self.send(json, meter.or(update)),
            None if self.is_subscription => GraphqlAnswer::Result(too_large(memory.too_large())),
            None => GraphqlAnswer::refused(memory.too_large()),
        }
    }

    /// The JSON of an answer, with its reservation until the next answer is requested.
    fn send(&mut self, json: Vec<u8>, reservation: Option<Arc<AnswerReservation>>) -> GraphqlAnswer {
        let memory = self.endpoint.memory();
        if json.len() > memory.max_answer() {
            return if self.is_subscription {
                GraphqlAnswer::Result(too_large(memory.too_large()))
            } else {
                GraphqlAnswer::refused(memory.too_large())
            };
        }
        self.sending = reservation;
        if let Some(meter) = &self.sending {
            meter.written(json.capacity());
        }
        GraphqlAnswer::Result(json)
    }

    /// The same for an update.
    fn send_update(&mut self, UpdateAnswer { encoded, reservation }: UpdateAnswer) -> GraphqlAnswer {
        let (memory, bytes) = (self.endpoint.memory(), encoded.json().len());
        if bytes > memory.max_answer() {
            return GraphqlAnswer::Result(too_large(memory.too_large()));
        }
        reservation.written(bytes);
        self.sending = Some(reservation);
        GraphqlAnswer::Update(encoded)
    }
}

/// An update that is longer than the limit: the stream continues.
fn too_large(refusal: HttpRefusal) -> Vec<u8> {
    serde_json::json!({ "errors": [refusal.into_json()], "data": null }).to_string().into_bytes()
}

impl Stream for AnswerStream {
    type Item = GraphqlAnswer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<GraphqlAnswer>> {
        self.sending = None;
        let _permit = match &mut self.cpu {
            Some(gate) => Some(ready!(gate.poll_permit(cx))),
            None => None,
        };
        if let Some((memory, values)) = self.begins.take() {
            match memory.begin(values) {
                Ok(meter) => self.meter = Some(meter),
                Err(refusal) => {
                    if let Some(span) = self.span.take() {
                        trace::fail(&span, refusal.kind().code());
                    }
                    return Poll::Ready(Some(GraphqlAnswer::refused(refusal)));
                }
            }
        }
        loop {
            let Some(result) = ready!(self.poll_result(cx)) else { return Poll::Ready(None) };
            if let Some(answer) = self.write(result) {
                return Poll::Ready(Some(answer));
            }
        }
    }
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").finish_non_exhaustive()
    }
}
