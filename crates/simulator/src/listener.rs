//! One simulated upstream on its socket: accept, read, record, play the fault or answer truly.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::{body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{FaultKind, SimUpstream, control, mindbridge, supermetrics};

use super::fault::{MadeUpAnswer, MadeUpBody, RetryAfter};

use super::request::{Incoming, SimRequest};

use super::reply::{Delivery, RequestInFlight, SimBody, SimReply};

use super::world::{Allowance, SimWorld};

/// The largest request body read: two hundred ids are some 6 KB.
const MAX_BODY: usize = 1 << 20;

/// Why a request gets no response at all.
#[derive(Debug)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("closed without an answer")
    }
}

impl std::error::Error for Closed {}

/// Serves until dropped. Dropping it closes the socket and every connection at once.
pub(super) async fn serve(world: Arc<SimWorld>, upstream: SimUpstream, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(Arc::clone(&world), upstream, stream, peer));
                }
                // Too many open files, or a client that has disconnected: let some connections end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(world: Arc<SimWorld>, upstream: SimUpstream, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    // Small answers are sent at once; a failure here only makes them slower.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| {
        let world = Arc::clone(&world);
        async move {
            let incoming = receive(request, peer, local).await.map_err(|_| Closed)?;
            respond(world, upstream, incoming).await
        }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A client that disconnects and a fault that cuts the connection both end here; neither is an error.
    drop(served.await);
}

async fn receive(
    request: Request<body::Incoming>,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<Incoming, io::Error> {
    let (parts, body) = request.into_parts();
    let body: Bytes = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Incoming { method: parts.method, uri: parts.uri, headers: parts.headers, body, peer, local })
}

pub(super) async fn respond(
    world: Arc<SimWorld>,
    upstream: SimUpstream,
    incoming: Incoming,
) -> Result<Response<SimBody>, Closed> {
    if incoming.path().starts_with(control::PREFIX) {
        let reply = control::answer(&world, upstream, &incoming);
        return Ok(reply.deliver(Delivery::Whole, RequestInFlight::new(world, upstream, None)));
    }
    let question = read(&world, upstream, &incoming);
    drop(incoming);
    let fault = world.fault(upstream, question.endpoint, &question.ids);
    let mut releases = world.releases();
    let number = world.ledger.begin(question.to_record());
    let in_flight = RequestInFlight::new(Arc::clone(&world), upstream, Some(number));
    let allowance = world.allowance(upstream);
    let latency = match upstream {
        SimUpstream::MindBridge => world.lock().scenario.mindbridge.latency,
        SimUpstream::Supermetrics => world.lock().scenario.supermetrics.latency,
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    if let Some(fault) = &fault {
        world.ledger.faulted(number, fault.name());
        match fault {
            FaultKind::CloseBeforeHeaders => return Err(Closed),
            FaultKind::SlowHeaders { delay } => tokio::time::sleep(*delay).await,
            // The sender is in `world`, so the wait can only end with a release.
            FaultKind::Hold => drop(releases.changed().await),
            FaultKind::Answer(_)
            | FaultKind::Redirect { .. }
            | FaultKind::MalformedJson
            | FaultKind::TruncatedBody
            | FaultKind::SlowBody { .. }
            | FaultKind::OversizedBody { .. }
            | FaultKind::GzipBomb { .. }
            | FaultKind::GzipAs { .. }
            | FaultKind::Status { .. }
            | FaultKind::Splice(_)
            | FaultKind::EchoCredential { .. }
            | FaultKind::Edit(_)
            | FaultKind::Omit { .. }
            | FaultKind::PageSize { .. } => {}
        }
    }
    let (mut reply, delivery) = compose(&world, &question, fault.as_ref(), allowance);
    if !reply.headers.contains_key("date") {
        reply = reply.with_header("date", &world.http_date(upstream, Duration::ZERO));
    }
    if let Some((limit, remaining)) = allowance.hourly {
        reply = reply
            .with_header("x-ratelimit-limit", &limit.to_string())
            .with_header("x-ratelimit-remaining", &remaining.to_string());
    }
    world.ledger.answered(number, reply.status);
    Ok(reply.deliver(delivery, in_flight))
}

fn read(world: &SimWorld, upstream: SimUpstream, incoming: &Incoming) -> SimRequest {
    let mut question = match upstream {
        SimUpstream::MindBridge => mindbridge::read(incoming),
        SimUpstream::Supermetrics => supermetrics::read(incoming),
    };
    question.authenticate(&world.lock().accepted[upstream.index()]);
    question
}

/// The answer and its delivery.
fn compose(
    world: &SimWorld,
    question: &SimRequest,
    fault: Option<&FaultKind>,
    allowance: Allowance,
) -> (SimReply, Delivery) {
    let Some(fault) = fault else {
        let reply = if allowance.exceeded {
            made_up(
                world,
                question,
                &MadeUpAnswer { status: 429, body: too_many(), ..MadeUpAnswer::default() },
            )
        } else {
            truly(world, question, None)
        };
        return (reply, Delivery::Whole);
    };
    let reply = truly(world, question, Some(fault));
    match fault {
        FaultKind::Answer(answer) => (made_up(world, question, answer), Delivery::Whole),
        FaultKind::Redirect { to } => (SimReply::empty(302).with_header("location", to), Delivery::Whole),
        FaultKind::EchoCredential { status } => (echo(world, question, *status, reply), Delivery::Whole),
        FaultKind::MalformedJson => (reply, Delivery::HalfDocument),
        FaultKind::TruncatedBody => (reply, Delivery::HalfSent),
        FaultKind::SlowBody { chunk, every } => (reply, Delivery::Drip { chunk: *chunk, every: *every }),
        FaultKind::OversizedBody { bytes } => (reply, Delivery::Padded(*bytes)),
        FaultKind::GzipBomb { bytes } => (reply, Delivery::Packed(*bytes)),
        // the delivery sets the encoding only if no header has set it
        FaultKind::GzipAs { encoding } => {
            (reply.with_header("content-encoding", encoding), Delivery::Packed(0))
        }
        FaultKind::Status { status } => (SimReply { status: *status, ..reply }, Delivery::Whole),
        FaultKind::Splice(splice) => (reply.spliced(splice), Delivery::Whole),
        FaultKind::Edit(edit) => {
            let mut reply = reply;
            reply.edit(|document| edit.apply(document));
            (reply, Delivery::Whole)
        }
        FaultKind::CloseBeforeHeaders
        | FaultKind::SlowHeaders { .. }
        | FaultKind::Hold
        | FaultKind::Omit { .. }
        | FaultKind::PageSize { .. } => (reply, Delivery::Whole),
    }
}

fn too_many() -> MadeUpBody {
    MadeUpBody::Problem { code: Some("too-many-requests".to_owned()), detail: None }
}

fn truly(world: &SimWorld, question: &SimRequest, fault: Option<&FaultKind>) -> SimReply {
    match question.upstream {
        SimUpstream::MindBridge => mindbridge::answer(world, question, fault),
        SimUpstream::Supermetrics => supermetrics::answer(world, question, fault),
    }
}

fn made_up(world: &SimWorld, question: &SimRequest, answer: &MadeUpAnswer) -> SimReply {
    let MadeUpAnswer { status, headers, retry_after, body } = answer;
    let mut reply = match body {
        MadeUpBody::Empty => SimReply::empty(*status),
        MadeUpBody::Html => {
            let page =
                format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>");
            SimReply::text(*status, "text/html; charset=utf-8", &page)
        }
        MadeUpBody::Problem { code, detail } => {
            let code = code.clone().unwrap_or_else(|| format!("HTTP_{status}"));
            let detail = detail.as_deref().unwrap_or("an injected fault of the simulator");
            match question.upstream {
                SimUpstream::MindBridge => mindbridge::problem(world, *status, &code, detail, &question.path),
                SimUpstream::Supermetrics => supermetrics::problem(*status, &code, detail, &question.path),
            }
        }
        MadeUpBody::Envelope { code, message, description } => {
            supermetrics::error(world, *status, code, message.as_deref(), description.as_deref())
        }
        MadeUpBody::Text { content_type, text } => SimReply::text(*status, content_type, text),
    };
    for (name, value) in headers {
        reply = reply.with_header(name, value);
    }
    let retry_after = retry_after.as_ref().map(|it| match it {
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::DateIn(seconds) => world.http_date(question.upstream, Duration::from_secs(*seconds)),
        RetryAfter::Text(text) => text.clone(),
    });
    retry_after.into_iter().fold(reply, |reply, value| reply.with_header("retry-after", &value))
}

/// Puts the client's credential where a careless service would.
fn echo(world: &SimWorld, question: &SimRequest, status: u16, mut reply: SimReply) -> SimReply {
    let message = format!("request with credential {} was seen", question.credential());
    if status != 200 {
        return match question.upstream {
            SimUpstream::MindBridge => {
                mindbridge::problem(world, status, "UNAUTHORIZED", &message, &question.path)
            }
            SimUpstream::Supermetrics => {
                supermetrics::error(world, status, "API_KEY_INVALID", Some(&message), Some(&message))
            }
        };
    }
    reply.edit(|document| {
        let pointers: &[&str] = match question.upstream {
            SimUpstream::MindBridge => &["", "/content/0"],
            SimUpstream::Supermetrics => &["/meta"],
        };
        for pointer in pointers {
            let Some(map) = document.pointer_mut(pointer).and_then(serde_json::Value::as_object_mut) else {
                continue;
            };
            for field in ["error", "errorMessage", "request_id"] {
                map.insert(field.to_owned(), message.as_str().into());
            }
        }
    });
    reply
}
