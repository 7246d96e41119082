//! The answers to one operation, one after the other, written as JSON when somebody is ready to take them and not before.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_graphql::Response as GraphqlResponse;
use async_graphql::parser::types::OperationType;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use super::{Door, Fresh, Prepared, reply};
use crate::inbound::answer_memory::{ClientMemory, Meter};
use crate::inbound::client_limits::Place;
use crate::inbound::cpu_limiter::CpuGate;
use crate::inbound::error::{Kind, Refusal};
use crate::inbound::graphql::handover::{LastUpdate, Slot};
use crate::inbound::streams::Transport;
use crate::telemetry::{meters, trace};

/// One answer, as the JSON that every transport puts into its own frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) enum Answer {
    /// A GraphQL response.
    Result(Vec<u8>),
    /// Nothing was executed, and why: a list of errors. The last answer.
    Refused(Vec<u8>),
}

impl Answer {
    /// The answer to an operation that did not reach the engine.
    pub(in crate::inbound::graphql) fn refused(refusal: Refusal) -> Self {
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

/// The answers to one operation. Ends when they do; dropping it ends the operation.
pub(in crate::inbound::graphql) struct Answers {
    door: Door,
    responses: BoxStream<'static, GraphqlResponse>,
    /// Where the resolvers of a subscription leave their streams, as long as the engine may call one.
    slot: Option<Arc<Slot>>,
    /// The document, until it is known to be valid.
    fresh: Option<Box<Fresh>>,
    first: bool,
    /// What the memory of the answer is reserved from, of a query or a mutation that has not begun.
    begins: Option<(ClientMemory, u64)>,
    /// The memory of the answer, until it is written.
    meter: Option<Arc<Meter>>,
    /// The memory of the update that was answered last.
    last: Option<LastUpdate>,
    /// The memory of what was written last, until more is asked for.
    sending: Option<Arc<Meter>>,
    /// What a large answer needs a permit of for each step.
    cpu: Option<CpuGate>,
    _watching: Option<Place>,
    /// The span of the operation, until it has begun: what goes on after that may take hours.
    span: Option<Box<trace::Active>>,
}

impl Door {
    /// Hands an operation of any type to the engine. Nothing happens until the first answer is asked for.
    pub(in crate::inbound::graphql) fn run(&self, prepared: Prepared, transport: Transport) -> Answers {
        let Prepared { request, operation, document, fresh, watching, values, memory, cpu, span } = prepared;
        meters::operation(operation.word(), transport.word());
        let (request, slot, begins) = if operation.kind == OperationType::Subscription {
            let slot = Slot::new(self.0.plans.clone(), document, memory, values);
            (request.data(slot.handover()), Some(slot), None)
        } else {
            (request, None, Some((memory, values)))
        };
        let last = slot.as_ref().map(|slot| slot.last());
        let responses = (self.0.execute_stream)(request);
        let span = span.boxed();
        Answers {
            door: self.clone(),
            responses,
            slot,
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

impl Answers {
    /// It is known by now whether the document is valid.
    fn begun(&mut self, executed: bool) {
        self.first = false;
        if let Some(fresh) = self.fresh.take()
            && executed
        {
            self.door.0.keep(*fresh);
        }
    }

    /// The next response: the engine's, and those of the streams that its resolvers left.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<GraphqlResponse>> {
        loop {
            let polled = {
                let _entered = self.span.as_ref().and_then(|span| span.place().enter());
                let responses = self.responses.as_mut();
                match &self.meter {
                    Some(meter) => meter.within(|| responses.poll_next(cx)),
                    None => responses.poll_next(cx),
                }
            };
            if polled.is_ready() {
                self.span = None;
            }
            let Some(left) = self.slot.as_ref().and_then(|slot| slot.take()) else { return polled };
            // a resolver was called, so the document is valid
            self.begun(true);
            self.span = None;
            match polled {
                Poll::Ready(None) => {
                    // the engine is done, and what it held is given back
                    self.responses = left;
                    self.slot = None;
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

    fn write(&mut self, mut response: GraphqlResponse) -> Answer {
        // the engine refuses only before it begins
        let executed = !self.first || reply::was_executed(&response);
        self.begun(executed);
        // of a query or a mutation; an update that does not fit is refused where it is built
        let meter = self.meter.take();
        if let Some(refusal) = meter.as_ref().and_then(|meter| meter.refusal()) {
            return Answer::refused(refusal);
        }
        let of_update = self.last.as_ref().and_then(LastUpdate::take);
        reply::finish(&mut response, executed);
        if !executed {
            return serde_json::to_vec(&response.errors).map_or_else(
                |_| {
                    Answer::refused(Refusal::new(Kind::Internal, "the response could not be encoded as JSON"))
                },
                Answer::Refused,
            );
        }
        let memory = self.door.memory();
        match reply::to_json(&response, true, memory) {
            Some(json) => {
                self.sending = meter.or(of_update);
                if let Some(meter) = &self.sending {
                    meter.written(json.capacity());
                }
                Answer::Result(json)
            }
            None if meter.is_some() => Answer::refused(memory.too_large()),
            None => Answer::Result(too_large(memory.too_large())),
        }
    }
}

/// An update that is longer than an answer may be: the stream goes on.
fn too_large(refusal: Refusal) -> Vec<u8> {
    serde_json::json!({ "errors": [refusal.into_json()], "data": null }).to_string().into_bytes()
}

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.sending = None;
        let _permit = match &mut self.cpu {
            Some(gate) => Some(ready!(gate.poll_permit(cx))),
            None => None,
        };
        if let Some((memory, values)) = self.begins.take() {
            match memory.begin(values) {
                Ok(meter) => self.meter = Some(meter),
                Err(refusal) => return Poll::Ready(Some(Answer::refused(refusal))),
            }
        }
        self.poll_response(cx).map(|response| response.map(|response| self.write(response)))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}
