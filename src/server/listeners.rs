//! Accepts connections: a limit of their number, TLS if it is configured, timeouts for a silent or slow peer, and a
//! graceful shutdown. A custom accept loop, because `axum::serve` has no such timeouts.

mod timeout_stream;
mod unread_body;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::inbound::auth::last_credential::LastCredential;
use crate::inbound::http::concurrency_limit::ConcurrencyLimit;
use crate::inbound::http::peer;
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::router::Routes;
use crate::inbound::streams::ConnectionPermit;
use crate::ports::spawner::{Spawner, TaskKind};

pub use timeout_stream::ConnectionTimeouts;
use timeout_stream::{RequestActivity, TimeoutStream};
use unread_body::UnreadBody;

/// How long the loop pauses when the system has no file handle left for an accept.
const REST: Duration = Duration::from_millis(100);
/// The maximum size of a request's head, and the size of a connection's buffers.
const HEAD_MAX: usize = 32 * 1024;
/// How long the system retries when a peer acknowledges nothing, or accepts no data, before it closes the connection.
/// Longer than a minute, so that the streams of a machine that was suspended for a minute survive.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(75);

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    local: SocketAddr,
}

/// The limits of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Concurrent connections. Further ones wait in the system's queue.
    pub connections: ConcurrencyLimit,
    /// The timeouts of each connection.
    pub timeouts: ConnectionTimeouts,
}

/// The shutdown of a listener and of its connections, in consecutive steps. A clone shares it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// All requests are served, and every response closes its connection.
    pub leaving: CancellationToken,
    /// No more connections are accepted. One with a running request is closed after the response.
    pub closed: CancellationToken,
    /// Connections without a request are closed. Late, since a peer may be sending a request at this moment and would
    /// lose it.
    pub idle: CancellationToken,
}

impl Listener {
    /// Binds an address. Port 0 takes any free port.
    ///
    /// # Errors
    /// Returns an error if the address is in use or not local, naming the option to change.
    pub async fn bind(name: &'static str, option: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let cannot =
            || format!("{option}: cannot listen on {address}; choose a free address of this machine");
        let socket = TcpListener::bind(address).await.with_context(cannot)?;
        let local = socket.local_addr().with_context(cannot)?;
        Ok(Self { name, socket, local })
    }

    /// The address in use.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until the shutdown begins; then accepts only the connections in the system's queue, and lets each
    /// connection finish its request. With `tls` each begins with a handshake.
    pub async fn serve<R: Routes>(
        self,
        routes: R,
        tls: Option<TlsAcceptor>,
        limits: ConnectionLimits,
        spawner: Arc<dyn Spawner>,
        ends: Shutdown,
    ) {
        let room = limits.connections.semaphore();
        let connection_service = ConnectionService { routes, timeouts: limits.timeouts, ends };
        let begin = |stream, address, permit| {
            let connection = peer::ConnectionPeer { address, tls: tls.is_some() };
            let serve =
                handle_connection(stream, tls.clone(), connection, connection_service.clone(), permit);
            spawner.spawn(TaskKind::Connection, Box::pin(serve));
        };
        loop {
            let accepted = tokio::select! {
                () = connection_service.ends.closed.cancelled() => break,
                accepted = self.accept(room) => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => begin(stream, address, permit),
                Err(error) => {
                    tracing::warn!(listener = self.name, %error, "accept failed");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        for (stream, address) in self.knocked() {
            let Ok(permit) = Arc::clone(room).try_acquire_owned() else { return };
            begin(stream, address, permit);
        }
    }

    /// The connections in the system's queue: closing the listener would reset them.
    fn knocked(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        let socket = self.socket.into_std().ok();
        std::iter::from_fn(move || {
            // never blocks: tokio's sockets are non-blocking
            let (stream, address) = socket.as_ref()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            Some((TcpStream::from_std(stream).ok()?, address))
        })
    }

    /// Acquires a permit first, so that new connections wait in the system's queue when the limit is reached.
    async fn accept(
        &self,
        room: &Arc<Semaphore>,
    ) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, address) = self.socket.accept().await?;
        Ok((stream, address, permit))
    }
}

/// The state of a connection's service.
#[derive(Clone)]
struct ConnectionService<R> {
    routes: R,
    timeouts: ConnectionTimeouts,
    ends: Shutdown,
}

/// Sets a connection up, and serves it.
async fn handle_connection<R: Routes>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: peer::ConnectionPeer,
    connection_service: ConnectionService<R>,
    room: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed");
    }
    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)) {
        tracing::debug!(%error, "setting TCP_USER_TIMEOUT failed");
    }
    match tls {
        None => serve(stream, connection, connection_service, room).await,
        // boxed, so that a connection without TLS does not have its size
        Some(tls) => Box::pin(serve_tls(stream, &tls, connection, connection_service, room)).await,
    }
}

/// Serves a connection that begins with a handshake.
async fn serve_tls<R: Routes>(
    stream: TcpStream,
    tls: &TlsAcceptor,
    connection: peer::ConnectionPeer,
    connection_service: ConnectionService<R>,
    room: OwnedSemaphorePermit,
) {
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(connection_service.timeouts.header, tls.accept(stream)) => shaken,
        () = connection_service.ends.idle.cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve(stream, connection, connection_service, room).await,
        Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
        Err(_) => tracing::debug!("tls handshake timed out"),
    }
}

/// Completes when a connection must accept no further request: after the running one, or later for an idle connection.
async fn over(ends: Shutdown, activity: RequestActivity) {
    ends.closed.cancelled().await;
    if !activity.under_way() {
        ends.idle.cancelled().await;
    }
}

async fn serve<IO, R: Routes>(
    io: IO,
    connection: peer::ConnectionPeer,
    connection_service: ConnectionService<R>,
    room: OwnedSemaphorePermit,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ConnectionService { routes, timeouts, ends } = connection_service;
    let mut http = http1::Builder::new();
    // `TimeoutStream` has the timeouts: hyper's own would count an idle connection as a slow head
    http.header_read_timeout(None).max_buf_size(HEAD_MAX);
    let connection = Arc::new(peer::Connection {
        peer: connection,
        permit: ConnectionPermit(Arc::new(room)),
        last_credential: LastCredential::default(),
    });
    let activity = RequestActivity::default();
    let wire = TimeoutStream::new(io, timeouts, HEAD_MAX, activity.clone());
    let over = over(ends.clone(), activity.clone());
    let remainder = UnreadBody::default();
    let service = service_fn(move |request: http::Request<Incoming>| {
        activity.begin();
        let (head, body) = request.into_parts();
        let body = remainder.lend(&head.headers, body);
        let facts = RequestFacts::on(Arc::clone(&connection));
        let answer = routes.serve(http::Request::from_parts(head, body), facts);
        let (activity, leaving, remainder) = (activity.clone(), ends.leaving.clone(), remainder.clone());
        async move {
            let mut response = answer.await;
            // an upgraded connection has no further request
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok::<_, Infallible>(response.map(|body| activity.upgrade(body)));
            }
            // a client that was too slow gets no second timeout
            let reusable = remainder.drain(response.status() != StatusCode::REQUEST_TIMEOUT).await;
            if !reusable {
                activity.lingering_close();
            }
            if !reusable || leaving.is_cancelled() {
                response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| activity.end_with(body)))
        }
    });
    let mut serving = pin!(http.serve_connection(TokioIo::new(wire), service).with_upgrades());
    let ended = tokio::select! {
        // requests first: a connection with a request is not idle
        biased;
        ended = serving.as_mut() => ended,
        () = over => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // A peer that disconnects, is too slow or does not use HTTP: normal, and noise at any other level.
        tracing::debug!(%error, "connection closed early");
    }
}
