//! The handler of `/graphql`: GraphQL over HTTP (September 2026), POST and GET, and the dispatch to the streaming
//! transports. It authenticates before it reads, and limits before it parses. `docs/graphql-over-http.md` and
//! `docs/streams.md` list each decision.

mod body;
mod negotiate;
mod reply;

use std::sync::Arc;

use async_graphql::Response as GraphqlResponse;
use async_graphql::parser::types::OperationType;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{event_stream, ws};
use crate::inbound::graphql::document::admission::{PreparedOperation, engine_request};
use crate::inbound::graphql::document::request::{GraphqlRequest, RequestText};
use crate::inbound::graphql::execution::endpoint::GraphqlEndpoint;
use crate::inbound::graphql::execution::response::{first_code, was_executed};
use crate::inbound::graphql::plan::query::PlannedAnswer;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::http::route::Route;
use crate::telemetry::{meters, trace};

use negotiate::{ResponseForm, ResponseType};

/// Answers a request of any method, so that a wrong one gets a response of the same form.
pub async fn serve(endpoint: &GraphqlEndpoint, request: Request, facts: &RequestFacts) -> Response {
    let answer = if ws::is_handshake(&request) {
        ws::upgrade(endpoint, request, facts)
    } else {
        answer(endpoint, request, facts).await
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    endpoint: &GraphqlEndpoint,
    request: Request,
    facts: &RequestFacts,
) -> Result<Response, HttpRefusal> {
    let verb = RequestMethod::of(request.method())?;
    let principal = endpoint.authenticate_request(request.headers(), facts)?;
    facts.set_client(&principal);
    // held until the answer, or until the stream that has its own
    let _place = endpoint.client_limits().admit(&principal)?;
    let accepted = negotiate::accepted(request.headers())?;
    let (parts, sent) = request.into_parts();
    let body;
    let text = match verb {
        RequestMethod::Get => RequestText::Url(parts.uri.query().unwrap_or_default()),
        RequestMethod::Post => {
            negotiate::check_content_type(&parts.headers)?;
            body = body::read(sent, endpoint.body_wait()).await?;
            RequestText::Json(&body)
        }
    };
    let permits = |kind| verb.permits(kind, accepted.streams());
    let mut prepared = match endpoint.prepare_known(text, &principal, permits) {
        Some(prepared) => prepared,
        None => endpoint.prepare(GraphqlRequest::parse(text)?, Some(text), principal.clone(), permits),
    };
    let operation = prepared.as_ref().ok().map(|prepared| &prepared.operation);
    if let Some(operation) = operation {
        facts.set_operation(operation.word());
    }
    match accepted.form(operation.map(|operation| operation.kind)) {
        ResponseForm::Stream(transport) => {
            endpoint.streams().settings().origins.check(&parts.headers, facts.secure())?;
            // a wrong method is an error of the request, not of the document
            let prepared = match prepared {
                Err(refusal) if refusal.kind() == RefusalKind::MethodNotAllowed => return Err(refusal),
                prepared => prepared,
            };
            event_stream::open(endpoint, transport, &principal, prepared, &parts.headers)
        }
        ResponseForm::Single(media) => {
            // the answer to a POST is not cached
            let revalidates = matches!(verb, RequestMethod::Get).then_some(&parts.headers);
            let prepared = match prepared {
                Ok(ref mut prepared) => prepared,
                Err(refusal) => return Err(refusal),
            };
            match prepared.cpu.take() {
                None => Ok(once(endpoint, prepared, media, revalidates).await),
                Some(gate) => Ok(gate.around(once(endpoint, prepared, media, revalidates)).boxed().await),
            }
        }
    }
}

/// Executes an operation with a single answer. `revalidates`: the headers of a request that may have its answer already.
async fn once(
    endpoint: &GraphqlEndpoint,
    prepared: &mut PreparedOperation,
    media: ResponseType,
    revalidates: Option<&HeaderMap>,
) -> Response {
    let span = prepared.span.clone();
    let fail = |refusal: HttpRefusal| {
        trace::fail(&span, refusal.kind().code());
        refusal.into_response()
    };
    // here, so that a large answer that waits for its permit reserves none
    let meter = match prepared.memory.begin(prepared.values) {
        Ok(meter) => meter,
        Err(refusal) => return fail(refusal),
    };
    let began = Instant::now();
    let PreparedOperation { principal, variables, operation, document, plan, .. } = &*prepared;
    let held = span.in_scope(|| endpoint.execute_held(plan.as_ref(), principal));
    let executed = if let Some(planned) = held {
        Executed::Planned(planned)
    } else {
        let executing = async {
            if let Some(planned) = endpoint.execute_plan(plan.as_ref(), principal).await {
                return Executed::Planned(planned);
            }
            let request = engine_request(document, operation, variables, principal);
            Executed::Engine(Arc::clone(&meter).around(endpoint.execute(request)).await)
        };
        // boxed, since most answers do not have to wait, and each step moves the future
        executing.instrument(span.clone()).boxed().await
    };
    meters::operation(prepared.operation.word(), "http");
    meters::operation_took(prepared.operation.word(), began.elapsed());
    if let Some(code) = executed.first_code() {
        trace::fail(&span, code);
    }
    if executed.is_valid()
        && let Some(fresh) = prepared.fresh.take()
    {
        endpoint.keep(*fresh);
    }
    match executed {
        Executed::Planned(planned) => match meter.admit(planned.written.texts) {
            Ok(()) => reply::planned(planned, media, revalidates, meter),
            Err(refusal) => fail(refusal),
        },
        Executed::Engine(response) => match meter.refusal() {
            None => reply::render(response, media, revalidates, meter),
            Some(refusal) => fail(refusal),
        },
    }
}

/// What executed an operation, and its result.
enum Executed {
    Planned(PlannedAnswer),
    Engine(GraphqlResponse),
}

impl Executed {
    /// Whether the document is valid.
    fn is_valid(&self) -> bool {
        match self {
            Self::Planned(_) => true,
            Self::Engine(response) => was_executed(response),
        }
    }

    /// The code of the first error.
    fn first_code(&self) -> Option<&str> {
        match self {
            Self::Planned(planned) => first_code(&planned.errors, true),
            Self::Engine(response) => first_code(&response.errors, was_executed(response)),
        }
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
                Route::Graphql.allow(),
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
