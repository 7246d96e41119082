//! The answers to one operation, one after the other, written as JSON when somebody is ready to take them and not before.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_graphql::Response as GraphqlResponse;
use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::{Door, Fresh, Prepared, reply};
use crate::inbound::client_limits::Place;
use crate::inbound::error::{Kind, Refusal};

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
    /// The document, until it is known to be valid.
    fresh: Option<Box<Fresh>>,
    first: bool,
    _watching: Option<Place>,
}

impl Door {
    /// Hands an operation of any type to the engine. Nothing happens until the first answer is asked for.
    pub(in crate::inbound::graphql) fn run(&self, prepared: Prepared) -> Answers {
        let Prepared { request, operation: _, fresh, watching } = prepared;
        let responses = (self.0.execute_stream)(request);
        Answers { door: self.clone(), responses, fresh, first: true, _watching: watching }
    }
}

impl Answers {
    fn write(&mut self, mut response: GraphqlResponse) -> Answer {
        // the engine refuses only before it begins
        let executed = !self.first || reply::was_executed(&response);
        self.first = false;
        if let Some(fresh) = self.fresh.take()
            && executed
        {
            self.door.0.keep(*fresh);
        }
        reply::finish(&mut response, executed);
        let written = if executed {
            reply::to_json(&response, true).map(Answer::Result)
        } else {
            serde_json::to_vec(&response.errors).map(Answer::Refused)
        };
        written.unwrap_or_else(|_| {
            Answer::refused(Refusal::new(Kind::Internal, "the answer could not be written as json"))
        })
    }
}

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let response = ready!(self.responses.as_mut().poll_next(cx));
        Poll::Ready(response.map(|response| self.write(response)))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}
