//! A TCP balancer that behaves like a Service with its endpoints: it probes the `/readyz` of each replica, distributes
//! new connections over the ready replicas round robin, and keeps existing connections where they are. It retries
//! nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire;

/// The interval between two probes of a replica.
const EVERY: Duration = Duration::from_millis(50);
/// An older probe result is ignored: a balancer without CPU time waits for the next results.
const FRESH: Duration = Duration::from_millis(300);
/// After this time a replica may be unchanged or gone. It is well within the time in which a stopping replica still
/// accepts.
const STALE: Duration = Duration::from_secs(1);
/// How often another replica is tried then.
const AGAIN: usize = 20;

/// A running balancer. Dropping it cuts every connection.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    endpoints: Endpoints,
    _tasks: JoinSet<()>,
}

type Endpoints = Arc<Mutex<Vec<Endpoint>>>;

#[derive(Clone, Copy, Debug)]
struct Endpoint {
    public: SocketAddr,
    admin: SocketAddr,
    /// When the last probe was sent, if its result was "ready".
    ready: Option<Instant>,
}

impl Balancer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoints = Endpoints::default();
        let mut tasks = JoinSet::new();
        let (sender, changes) = watch::channel(());
        tasks.spawn(check_readiness(Arc::clone(&endpoints), sender));
        tasks.spawn(balance(listener, Arc::clone(&endpoints), changes));
        Self { address, endpoints, _tasks: tasks }
    }

    /// Adds a replica; it receives connections once it is ready.
    pub(crate) fn add(&self, public: SocketAddr, admin: SocketAddr) {
        self.endpoints.lock().unwrap().push(Endpoint { public, admin, ready: None });
    }

    /// Removes a replica.
    pub(crate) fn remove(&self, public: SocketAddr) {
        self.endpoints.lock().unwrap().retain(|endpoint| endpoint.public != public);
    }

    /// Whether a replica gets connections.
    pub(crate) fn sends_to(&self, public: SocketAddr) -> bool {
        self.endpoints.lock().unwrap().iter().any(|one| one.public == public && one.ready.is_some())
    }
}

async fn check_readiness(endpoints: Endpoints, sender: watch::Sender<()>) {
    let mut again = tokio::time::interval(EVERY);
    loop {
        again.tick().await;
        let known = endpoints.lock().unwrap().clone();
        let mut asking = JoinSet::new();
        for endpoint in known {
            asking.spawn(async move {
                let checked_at = Instant::now();
                let ready = tokio::time::timeout(Duration::from_secs(1), is_ready(endpoint.admin)).await;
                (endpoint.public, (ready == Ok(true)).then_some(checked_at))
            });
        }
        for (public, ready) in asking.join_all().await {
            let mut endpoints = endpoints.lock().unwrap();
            if let Some(endpoint) = endpoints.iter_mut().find(|endpoint| endpoint.public == public) {
                endpoint.ready = ready;
            }
        }
        sender.send_replace(());
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut socket) = TcpStream::connect(admin).await else { return false };
    if socket.write_all(&wire::request("GET", "/readyz", &[], "")).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok();
    answer.starts_with(b"HTTP/1.1 200 ")
}

async fn balance(listener: TcpListener, endpoints: Endpoints, changes: watch::Receiver<()>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (endpoints, next, changes) = (Arc::clone(&endpoints), Arc::clone(&next), changes.clone());
        connections.spawn(async move {
            let Some(mut replica) = connect(&endpoints, &next, changes).await else { return };
            for side in [&client, &replica] {
                side.set_nodelay(true).ok();
            }
            copy_bidirectional(&mut client, &mut replica).await.ok();
        });
    }
}

/// Connects to a ready replica. Retries nothing, unless this machine was suspended meanwhile: a replica whose probe is
/// that old may have stopped by now.
async fn connect(
    endpoints: &Endpoints,
    next: &AtomicUsize,
    changes: watch::Receiver<()>,
) -> Option<TcpStream> {
    for _ in 0..AGAIN {
        let (to, checked_at) = choose(endpoints, next, changes.clone()).await;
        let replica = TcpStream::connect(to).await.ok();
        if checked_at.elapsed() < STALE {
            return replica;
        }
    }
    let (to, _) = choose(endpoints, next, changes).await;
    TcpStream::connect(to).await.ok()
}

/// A ready replica, and when it was probed.
async fn choose(
    endpoints: &Endpoints,
    next: &AtomicUsize,
    mut changes: watch::Receiver<()>,
) -> (SocketAddr, Instant) {
    let mut fresh = FRESH;
    loop {
        let known = endpoints.lock().unwrap().clone();
        let is_ready =
            |endpoint: &&Endpoint| endpoint.ready.is_some_and(|checked_at| checked_at.elapsed() < fresh);
        let ready = known.iter().filter(is_ready).filter_map(|one| Some((one.public, one.ready?)));
        let ready: Vec<(SocketAddr, Instant)> = ready.collect();
        if !ready.is_empty() {
            return ready[next.fetch_add(1, Ordering::Relaxed) % ready.len()];
        }
        // the current value is new enough
        changes.mark_unchanged();
        changes.changed().await.ok();
        fresh = Duration::MAX;
    }
}
