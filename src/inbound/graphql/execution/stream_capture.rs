//! Passes a subscription's stream of updates from its resolver to the transport, bypassing the engine, which would keep
//! some 10 kB for each stream. The engine validates the document and calls the resolver; the resolver's stream is
//! captured here, and each update is executed by a shared `plan`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_graphql::{Context, OutputType, Pos, Response};
use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use tracing::Instrument as _;

use super::delivery_span::DeliverySpan;
use super::plan::UpdatePlans;
use crate::inbound::answer_limits::answer_memory::{AnswerReservation, ClientMemory};
use crate::inbound::graphql::plan::document::ParsedDocument;
use crate::telemetry::trace;

/// The handle by which a resolver passes its stream on: request data. It is invalid once the operation has ended.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) struct StreamCapture(Weak<CapturedStream>);

/// The reservation of the last update, from its execution to the transport. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(in crate::inbound::graphql) struct LastUpdate(Arc<Mutex<Option<Arc<AnswerReservation>>>>);

impl LastUpdate {
    fn put(&self, meter: Arc<AnswerReservation>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(meter);
    }

    /// Takes it over.
    pub(in crate::inbound::graphql) fn take(&self) -> Option<Arc<AnswerReservation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The captured streams, owned by the running operation.
pub(in crate::inbound::graphql) struct CapturedStream {
    plans: UpdatePlans,
    document: Arc<ParsedDocument>,
    memory: ClientMemory,
    /// The reservation of the last update.
    last: LastUpdate,
    /// The maximum number of values of an update.
    values: u64,
    left: Mutex<Vec<BoxStream<'static, Response>>>,
}

impl CapturedStream {
    /// For the streams of one operation of a document.
    pub(in crate::inbound::graphql) fn new(
        plans: UpdatePlans,
        document: Arc<ParsedDocument>,
        memory: ClientMemory,
        values: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            plans,
            document,
            memory,
            last: LastUpdate::default(),
            values,
            left: Mutex::default(),
        })
    }

    /// The reservation of the last update.
    pub(in crate::inbound::graphql) fn last(&self) -> LastUpdate {
        self.last.clone()
    }

    /// The handle for resolvers.
    pub(in crate::inbound::graphql) fn capture_handle(self: &Arc<Self>) -> StreamCapture {
        StreamCapture(Arc::downgrade(self))
    }

    /// The streams that were captured since the last call: the responses of every root field, as they come.
    pub(in crate::inbound::graphql) fn take(&self) -> Option<BoxStream<'static, Response>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.len() {
            0 | 1 => left.pop(),
            _ => Some(stream::select_all(left.drain(..)).boxed()),
        }
    }
}

/// Captures updates without spans of their own.
#[cfg(test)]
pub(in crate::inbound::graphql) fn capture<T>(
    ctx: &Context<'_>,
    updates: impl Stream<Item = T> + Send + 'static,
) -> BoxStream<'static, T>
where
    T: OutputType + 'static,
{
    capture_delivery(ctx, updates.map(|update| (update, None)))
}

/// Captures updates of the field that is being resolved; returns what its resolver returns. Each update is delivered
/// under its own span, if it has the data for one.
///
/// If no transport captures streams, the engine gets the updates themselves.
pub(in crate::inbound::graphql) fn capture_delivery<T>(
    ctx: &Context<'_>,
    updates: impl Stream<Item = (T, Option<Box<DeliverySpan>>)> + Send + 'static,
) -> BoxStream<'static, T>
where
    T: OutputType + 'static,
{
    let captured_stream =
        ctx.data_opt::<StreamCapture>().and_then(|capture_handle| capture_handle.0.upgrade());
    let Some(captured_stream) = captured_stream else { return updates.map(|(update, _)| update).boxed() };
    let data = Arc::clone(&ctx.query_env.query_data);
    let plan = captured_stream.plans.of(ctx, &captured_stream.document);
    let subscription = trace::TraceContext::here().to_link();
    let (memory, values, last) =
        (captured_stream.memory.clone(), captured_stream.values, captured_stream.last());
    // boxed only while an update is being executed, which is rarely
    let responses = updates
        .then(move |(update, delivery)| {
            let answer = Arc::clone(&plan).execute(Arc::clone(&data), update);
            let answer = metered(memory.begin_update(values), last.clone(), answer);
            match delivery {
                None => answer.boxed(),
                Some(delivery) => answer.instrument(delivery.span(subscription.as_deref())).boxed(),
            }
        })
        .boxed();
    captured_stream.left.lock().unwrap_or_else(PoisonError::into_inner).push(responses);
    stream::empty().boxed()
}

/// Executes an update within its memory, or returns why it cannot be delivered.
async fn metered(
    meter: Arc<AnswerReservation>,
    last: LastUpdate,
    answer: impl Future<Output = Response>,
) -> Response {
    let response = Arc::clone(&meter).around(answer).await;
    match meter.refusal() {
        None => {
            last.put(meter);
            response
        }
        Some(refusal) => {
            let error = async_graphql::Error::from(refusal).into_server_error(Pos::default());
            Response::from_errors(vec![error])
        }
    }
}

impl fmt::Debug for CapturedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapturedStream").finish_non_exhaustive()
    }
}
