//! How a subscription's stream of updates gets from its resolver to the transport: past the engine, which would hold some
//! 10 kB for as long as it lasts. The engine judges the document and calls the resolver; what the resolver follows is
//! handed over here, and each update is answered by a shared `plan`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Context, OutputType, Pos, Response};
use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use super::plan::UpdatePlans;
use super::update::DeliverySpan;
use crate::inbound::answer_memory::{AnswerReservation, ClientMemory};
use crate::telemetry::trace;

/// Where a resolver leaves its stream: request data. The place is gone once the operation is.
#[derive(Clone, Debug)]
pub(super) struct StreamCapture(Weak<CapturedStream>);

/// The memory of the update that was answered last, from its execution to the transport. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct LastUpdate(Arc<Mutex<Option<Arc<AnswerReservation>>>>);

impl LastUpdate {
    fn put(&self, meter: Arc<AnswerReservation>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(meter);
    }

    /// Takes it over.
    pub(super) fn take(&self) -> Option<Arc<AnswerReservation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The place itself, which whoever runs the operation holds.
pub(super) struct CapturedStream {
    plans: UpdatePlans,
    document: Arc<ExecutableDocument>,
    memory: ClientMemory,
    /// The memory of the update that was answered last.
    last: LastUpdate,
    /// The most values of an update.
    values: u64,
    left: Mutex<Vec<BoxStream<'static, Response>>>,
}

impl CapturedStream {
    /// A place for the streams of one operation of a document.
    pub(super) fn new(
        plans: UpdatePlans,
        document: Arc<ExecutableDocument>,
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

    /// The memory of the update that was answered last.
    pub(super) fn last(&self) -> LastUpdate {
        self.last.clone()
    }

    /// What resolvers are given to find it.
    pub(super) fn capture_handle(self: &Arc<Self>) -> StreamCapture {
        StreamCapture(Arc::downgrade(self))
    }

    /// What was left here since it was last taken: the responses of every root field, each as it comes.
    pub(super) fn take(&self) -> Option<BoxStream<'static, Response>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.len() {
            0 | 1 => left.pop(),
            _ => Some(stream::select_all(left.drain(..)).boxed()),
        }
    }
}

/// Tells updates that have no spans of their own.
#[cfg(test)]
pub(super) fn capture<T>(
    ctx: &Context<'_>,
    updates: impl Stream<Item = T> + Send + 'static,
) -> BoxStream<'static, T>
where
    T: OutputType + 'static,
{
    capture_delivery(ctx, updates.map(|update| (update, None)))
}

/// Tells updates as the field that is being resolved: what its resolver returns. Each is told under the span of its
/// delivery, where it comes with what that says.
///
/// Where nobody takes streams over, the engine gets the updates themselves.
pub(super) fn capture_delivery<T>(
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
    // boxed for as long as an update is being answered, which is no time for most
    let responses = updates
        .then(move |(update, delivery)| {
            let answer = Arc::clone(&plan).execute(Arc::clone(&data), update);
            let answer = metered(memory.begin_update(values), last.clone(), answer);
            match delivery {
                None => answer.boxed(),
                Some(delivery) => {
                    let span = delivery.span(subscription.as_deref());
                    async move { span.context().hold(answer).await }.boxed()
                }
            }
        })
        .boxed();
    captured_stream.left.lock().unwrap_or_else(PoisonError::into_inner).push(responses);
    stream::empty().boxed()
}

/// Answers an update within its memory, or says why it cannot be told.
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
