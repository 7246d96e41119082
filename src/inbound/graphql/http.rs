//! The handler of `/graphql`: GraphQL over HTTP (September 2026), POST and GET, one response each.
//! It authenticates before it reads, limits before it parses, and knows nothing of the schema.
//! `docs/graphql-over-http.md` lists each decision.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::{Executor, Request as GraphqlRequest, Response as GraphqlResponse};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use secrecy::SecretString;

use super::documents::Documents;
use super::limits::Limits;
use super::operation::{Operation, check_variables};
use crate::domain::principal::Principal;
use crate::inbound::error::{Kind, Refusal};

pub(in crate::inbound) mod bearer;
mod body;
mod negotiate;
mod reply;

/// Bytes of parsed documents that are held, roughly.
const DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

type Execute = dyn Fn(GraphqlRequest) -> BoxFuture<'static, GraphqlResponse> + Send + Sync;
type Authenticate = dyn Fn(Option<&SecretString>) -> Result<Principal, Refusal> + Send + Sync;

/// The door to one schema. A clone is cheap and shares the held documents.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    execute: Box<Execute>,
    authenticate: Box<Authenticate>,
    limits: Limits,
    body_wait: Duration,
    documents: Documents,
}

impl Door {
    /// A door to a schema.
    ///
    /// `authenticate` is given the bearer token of each request, or its absence, before anything else is
    /// looked at; the principal it gives reaches resolvers as request data, beside the [`Operation`].
    /// `body_wait` is how long a client may take to send its body.
    pub fn new<E: Executor>(
        executor: E,
        authenticate: impl Fn(Option<&SecretString>) -> Result<Principal, Refusal> + Send + Sync + 'static,
        limits: Limits,
        body_wait: Duration,
    ) -> Self {
        let execute = move |request| {
            let executor = executor.clone();
            async move { executor.execute(request).await }.boxed()
        };
        Self(Arc::new(Inner {
            execute: Box::new(execute),
            authenticate: Box::new(authenticate),
            limits,
            body_wait,
            documents: Documents::new(DOCUMENT_BYTES),
        }))
    }

    /// The route: every method, so that a wrong one is answered in the same words as all else.
    pub fn route<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        any(serve).with_state(self)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

async fn serve(State(door): State<Door>, request: Request) -> Response {
    door.0.answer(request).await.unwrap_or_else(IntoResponse::into_response)
}

impl Inner {
    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let verb = Verb::of(request.method())?;
        let principal = (self.authenticate)(bearer::token(request.headers())?.as_ref())?;
        let media = negotiate::response_type(request.headers())?;
        let parameters = match verb {
            Verb::Get => body::Parameters::from_url(request.uri().query().unwrap_or_default())?,
            Verb::Post => {
                negotiate::check_content_type(request.headers())?;
                let bytes = body::read(request.into_body(), self.body_wait).await?;
                body::Parameters::from_json(&bytes)?
            }
        };

        let text = parameters.query;
        let (document, fresh) = self.document(&text)?;
        let (operation, definition) = Operation::select(&document, parameters.operation_name.as_deref())?;
        verb.permits(operation.kind)?;
        check_variables(definition, &parameters.variables)?;
        self.limits.check_cost(&document, definition, &parameters.variables)?;

        // the text stays here: the engine needs only what was parsed from it
        let mut request = GraphqlRequest::new("").variables(parameters.variables);
        request.operation_name.clone_from(&operation.name);
        request.set_parsed_query(ExecutableDocument::clone(&document));
        let response = (self.execute)(request.data(principal).data(operation.clone())).await;

        let executed = reply::was_executed(&response);
        if executed && let Some(tokens) = fresh {
            self.documents.keep(&text, tokens, document);
        }
        let mut response = reply::render(response, executed, media);
        response.extensions_mut().insert(operation);
        Ok(response)
    }

    /// Gives the document of a text, and the number of its tokens if it was not held.
    fn document(&self, text: &str) -> Result<(Arc<ExecutableDocument>, Option<usize>), Refusal> {
        if let Some(held) = self.documents.get(text) {
            return Ok((held, None));
        }
        let tokens = self.limits.check_text(text)?;
        let document = parse_query(text).map_err(|error| reply::unparsable(&error))?;
        self.limits.check_shape(&document)?;
        Ok((Arc::new(document), Some(tokens)))
    }
}

/// How a request came.
#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
}

impl Verb {
    fn of(method: &Method) -> Result<Self, Refusal> {
        match *method {
            // a HEAD is a GET whose body the server does not send
            Method::GET | Method::HEAD => Ok(Self::Get),
            Method::POST => Ok(Self::Post),
            _ => Err(Refusal::method(
                "GET, HEAD, POST",
                "this method is not served; use POST, or GET for a query",
            )),
        }
    }

    fn permits(self, kind: OperationType) -> Result<(), Refusal> {
        match (self, kind) {
            (_, OperationType::Query) | (Self::Post, OperationType::Mutation) => Ok(()),
            (Self::Get, OperationType::Mutation) => {
                Err(Refusal::method("POST", "a mutation is not executed by GET; send it by POST"))
            }
            (Self::Get, OperationType::Subscription) => {
                Err(Refusal::method("POST", "a subscription is not executed by GET; open a stream for it"))
            }
            (Self::Post, OperationType::Subscription) => Err(Refusal::new(
                Kind::SubscriptionNeedsStream,
                "a subscription is not answered by a single response; open a stream for it",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
