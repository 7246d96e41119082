//! The answers to one operation, one after the other, serialized only when the transport is ready for them.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_graphql::Response as GraphqlResponse;
use async_graphql::parser::types::OperationType;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use tracing::Span;

use super::endpoint::GraphqlEndpoint;
use super::response::{self, was_executed};
use super::stream_capture::{CapturedStream, LastUpdate};
use crate::inbound::answer_limits::answer_memory::{AnswerReservation, ClientMemory};
use crate::inbound::answer_limits::cpu_limiter::CpuGate;
use crate::inbound::client_limits::RequestPermit;
use crate::inbound::graphql::document::admission::{PreparedOperation, UncachedDocument};
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::streams::Transport;
use crate::telemetry::{meters, trace};

/// One answer, as the JSON that every transport puts into its own frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum GraphqlAnswer {
    /// A GraphQL response.
    Result(Vec<u8>),
    /// Nothing was executed: a list of errors. The last answer.
    Refused(Vec<u8>),
}

impl GraphqlAnswer {
    /// The answer to an operation that did not reach the engine.
    pub(in crate::inbound::graphql) fn refused(refusal: HttpRefusal) -> Self {
        Self::Refused(serde_json::Value::from(vec![refusal.into_json()]).to_string().into_bytes())
    }

    /// The answer as a GraphQL response.
    pub(in crate::inbound::graphql) fn into_response(self) -> Vec<u8> {
        match self {
            Self::Result(json) => json,
            Self::Refused(errors) => [b"{\"errors\":", errors.as_slice(), b"}"].concat(),
        }
    }
}

/// The answers to one operation. Ends with the last one; dropping it ends the operation.
pub(in crate::inbound::graphql) struct AnswerStream {
    endpoint: GraphqlEndpoint,
    responses: BoxStream<'static, GraphqlResponse>,
    /// Receives the streams of a subscription's resolvers, as long as the engine may call one.
    captured_stream: Option<Arc<CapturedStream>>,
    /// The document, until it has been validated.
    fresh: Option<Box<UncachedDocument>>,
    first: bool,
    /// The source of the answer's reservation, of a query or a mutation that has not begun.
    begins: Option<(ClientMemory, u64)>,
    /// The reservation of the answer, until it is serialized.
    meter: Option<Arc<AnswerReservation>>,
    /// The reservation of the last update.
    last: Option<LastUpdate>,
    /// The reservation of the last serialized answer, until the next one is requested.
    sending: Option<Arc<AnswerReservation>>,
    /// The permits for each step of a large answer.
    cpu: Option<CpuGate>,
    _watching: Option<RequestPermit>,
    /// The span of the operation, until it has begun: a subscription may continue for hours after that.
    span: Option<Box<Span>>,
}

impl GraphqlEndpoint {
    /// Passes an operation of any type to the engine. Nothing runs until the first answer is requested.
    pub(in crate::inbound::graphql) fn run(
        &self,
        prepared: PreparedOperation,
        transport: Transport,
    ) -> AnswerStream {
        let request = prepared.engine_request();
        let PreparedOperation { operation, document, fresh, watching, values, memory, cpu, span, .. } =
            prepared;
        meters::operation(operation.word(), transport.word());
        let (request, captured_stream, begins) = if operation.kind == OperationType::Subscription {
            let captured_stream = CapturedStream::new(self.update_plans(), document, memory, values);
            (request.data(captured_stream.capture_handle()), Some(captured_stream), None)
        } else {
            (request, None, Some((memory, values)))
        };
        let last = captured_stream.as_ref().map(|captured_stream| captured_stream.last());
        let responses = self.execute_stream(request);
        let span = trace::boxed(span);
        AnswerStream {
            endpoint: self.clone(),
            responses,
            captured_stream,
            fresh,
            first: true,
            begins,
            meter: None,
            last,
            sending: None,
            cpu,
            _watching: watching,
            span,
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

    /// Ends the span of the operation with its first response.
    fn end_span(&mut self, response: Option<&GraphqlResponse>) {
        let Some(span) = self.span.take() else { return };
        let executed = |response| !self.first || was_executed(response);
        if let Some(code) =
            response.and_then(|response| response::first_code(&response.errors, executed(response)))
        {
            trace::fail(&span, code);
        }
    }

    /// The next response: of the engine, or of the streams that its resolvers returned.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<GraphqlResponse>> {
        loop {
            let polled = {
                let _entered = self.span.as_ref().map(|span| span.enter());
                let responses = self.responses.as_mut();
                match &self.meter {
                    Some(meter) => meter.within(|| responses.poll_next(cx)),
                    None => responses.poll_next(cx),
                }
            };
            if let Poll::Ready(response) = &polled {
                self.end_span(response.as_ref());
            }
            let Some(left) = self.captured_stream.as_ref().and_then(|captured_stream| captured_stream.take())
            else {
                return polled;
            };
            // a resolver was called, so the document is valid
            self.begun(true);
            self.span = None;
            match polled {
                Poll::Ready(None) => {
                    // the engine is done, and its memory is released
                    self.responses = left;
                    self.captured_stream = None;
                }
                Poll::Ready(Some(_)) | Poll::Pending => {
                    let engine = mem::replace(&mut self.responses, stream::empty().boxed());
                    self.responses = stream::select(engine, left).boxed();
                    if polled.is_ready() {
                        return polled;
                    }
                }
            }
        }
    }

    fn write(&mut self, mut response: GraphqlResponse) -> GraphqlAnswer {
        // the engine rejects an operation only before it begins
        let executed = !self.first || was_executed(&response);
        self.begun(executed);
        // of a query or a mutation; an update that does not fit is rejected where it is built
        let meter = self.meter.take();
        if let Some(refusal) = meter.as_ref().and_then(|meter| meter.refusal()) {
            return GraphqlAnswer::refused(refusal);
        }
        let of_update = self.last.as_ref().and_then(LastUpdate::take);
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
            Some(json) => {
                self.sending = meter.or(of_update);
                if let Some(meter) = &self.sending {
                    meter.written(json.capacity());
                }
                GraphqlAnswer::Result(json)
            }
            None if meter.is_some() => GraphqlAnswer::refused(memory.too_large()),
            None => GraphqlAnswer::Result(too_large(memory.too_large())),
        }
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
        self.poll_response(cx).map(|response| response.map(|response| self.write(response)))
    }
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").finish_non_exhaustive()
    }
}
