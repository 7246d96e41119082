//! Replaces the replicas of a gateway one by one behind a balancer, repeatedly, while requests arrive at a constant
//! rate and streams are open, and counts the errors that clients see.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobgate_simulator::{Addresses, MindBridgeJob, Simulator};
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::balancer::Balancer;
use super::process::Process;
use super::redis::Redis;
use super::scratch::Scratch;
use super::server::{ANY, KEY, Setup, TOKEN, describe, external};
use super::streams::{Carrier, Sse, StreamEvent, Watcher, WebSocket, room_for, settles};

/// How long a stopping replica still accepts, and over what time it closes its streams.
pub(crate) const DELAY: Duration = Duration::from_secs(3);
pub(crate) const WINDOW: Duration = Duration::from_secs(2);
/// Parts of the window in which the closed streams are counted.
const PARTS: u32 = 10;
/// The limit of every wait: only a hung gateway reaches it.
const LIMIT: Duration = Duration::from_mins(2);
/// Idle connections that are reused, and concurrent requests.
const KEPT: usize = 64;
const UNDER_WAY: usize = 256;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rollouts: usize,
    pub(crate) replicas: usize,
    /// Requests in a second.
    pub(crate) pace: u32,
    /// Half over WebSocket, half as event streams.
    pub(crate) streams: usize,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) rollouts: usize,
    pub(crate) requests: usize,
    /// Requests on a connection that had been used before.
    pub(crate) reused: usize,
    pub(crate) failed: Vec<String>,
    /// Requests that were sent on an idle connection just as it was closed, and were retried on a new one: HTTP/1.1
    /// cannot exclude that, and every client that reuses connections retries so (RFC 9112, 9.5). They are no failures,
    /// and rare.
    pub(crate) crossed: usize,
    /// How streams closed: with the protocol's signal to reconnect, or otherwise.
    pub(crate) ends: BTreeMap<String, usize>,
    /// The worst of all stopped replicas: the most closed streams in one part of the window, relative to the mean.
    pub(crate) worst_peak: f64,
    /// The time between the first and the last closed stream at each stopped replica, the shortest first.
    pub(crate) spreads: Vec<Duration>,
    /// The longest time that a stream was disconnected.
    pub(crate) longest_gap: Duration,
}

/// What clients observed so far.
#[derive(Debug, Default)]
struct Noticed {
    outcome: Mutex<Outcome>,
    /// When streams closed since the last reset.
    ended: Mutex<Vec<Instant>>,
    open: AtomicUsize,
}

struct Replica {
    process: Process,
    public: SocketAddr,
}

/// The result of a request without the start of a response.
const CUT: &str = "closed without a word";

/// The results after which a client knows that it can reconnect.
pub(crate) const ANNOUNCED: [&str; 2] = ["websocket 1012", "sse whole"];

/// Performs the planned rollouts. `progress` is called after each.
pub(crate) async fn run(plan: Plan, progress: impl Fn(&Outcome) + Send) -> Outcome {
    // a stream has three sockets in this process, and so has a connection for requests
    room_for(8 * plan.streams + 2_000);
    let redis = Redis::start().await;
    let mut setup = Setup::with(
        vec![
            MindBridgeJob::new("runs", &[(0, "IN_PROGRESS")]),
            MindBridgeJob::new("ended", &[(0, "COMPLETE")]),
        ],
        Vec::new(),
    );
    setup.rest = format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, drain_delay: {}ms, drain_timeout: 10m, \
         request_timeout: 10m, header_timeout: 5m }}\n\
         streams: {{ drain_window: {}ms }}\n\
         store: {{ kind: redis, redis: {{ url: {{ env: REDIS_URL }}, timeout: 5s }} }}",
        DELAY.as_millis(),
        WINDOW.as_millis(),
    );
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let balancer = Balancer::start().await;
    let mut replicas = Vec::new();
    for _ in 0..plan.replicas {
        replicas.push(start(&config, &redis, &balancer).await);
    }

    let noticed = Arc::new(Noticed::default());
    let mut clients = JoinSet::new();
    clients.spawn(requests(balancer.address, plan.pace, Arc::clone(&noticed)));
    for number in 0..plan.streams {
        let carrier = if number % 2 == 0 { WebSocket } else { Sse };
        clients.spawn(stream(balancer.address, carrier, Arc::clone(&noticed)));
    }
    all_open(&noticed, plan.streams, 0, &mut clients).await;

    for rollout in 1..=plan.rollouts {
        for replica in &mut replicas {
            let next = start(&config, &redis, &balancer).await;
            let old = std::mem::replace(replica, next);
            stop(old, &balancer, &noticed).await;
        }
        // each has closed at least once, and its client has noticed
        all_open(&noticed, plan.streams, rollout * plan.streams, &mut clients).await;
        let mut outcome = noticed.outcome.lock().unwrap();
        outcome.rollouts += 1;
        let so_far = outcome.clone();
        drop(outcome);
        progress(&so_far);
    }
    clients.shutdown().await;
    std::mem::take(&mut *noticed.outcome.lock().unwrap())
}

/// Waits until `ends` streams have closed, and every stream is open. A failed client fails the test with its own
/// message.
async fn all_open(noticed: &Noticed, streams: usize, ends: usize, clients: &mut JoinSet<()>) {
    let event = || noticed.outcome.lock().unwrap().ends.values().sum::<usize>();
    let open = async {
        let mut again = tokio::time::interval(Duration::from_millis(10));
        while event() < ends || noticed.open.load(Ordering::Relaxed) < streams {
            again.tick().await;
            if let Some(broken) = clients.try_join_next() {
                broken.unwrap();
            }
        }
    };
    let all = tokio::time::timeout(LIMIT, open).await;
    assert!(all.is_ok(), "{} of {streams} streams are open", noticed.open.load(Ordering::Relaxed));
}

async fn start(config: &Scratch, redis: &Redis, balancer: &Balancer) -> Replica {
    let url = redis.url();
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY), ("REDIS_URL", url.as_str())];
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let (public, admin) = (process.address("public").await, process.address("admin").await);
    balancer.add(public, admin);
    settles("the new replica is ready", LIMIT, || balancer.sends_to(public)).await;
    Replica { process, public }
}

/// Stops a replica as the kubelet does, and checks how its streams closed.
async fn stop(old: Replica, balancer: &Balancer, noticed: &Noticed) {
    noticed.ended.lock().unwrap().clear();
    old.process.signal("TERM").await;
    let begins = Instant::now() + DELAY;
    let (status, output) = old.process.ended().await;
    balancer.remove(old.public);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("stopped") && !output.contains("before the drain completed"), "{output}");

    let ended = std::mem::take(&mut *noticed.ended.lock().unwrap());
    let (Some(first), Some(last)) = (ended.iter().min(), ended.iter().max()) else { return };
    let mut parts = [0_u32; PARTS as usize];
    for at in &ended {
        let part = at.saturating_duration_since(begins).as_millis() * u128::from(PARTS) / WINDOW.as_millis();
        parts[usize::try_from(part).unwrap().min(parts.len() - 1)] += 1;
    }
    let mean = f64::from(parts.iter().sum::<u32>()) / f64::from(PARTS);
    let peak = f64::from(parts.into_iter().max().unwrap()) / mean;
    let spread = *last - *first;
    let mut outcome = noticed.outcome.lock().unwrap();
    let place = outcome.spreads.partition_point(|before| *before < spread);
    outcome.spreads.insert(place, spread);
    outcome.worst_peak = outcome.worst_peak.max(peak);
}

/// One stream after the other, each opened as soon as the previous one is closed.
async fn stream(gateway: SocketAddr, carrier: Carrier, noticed: Arc<Noticed>) {
    let mut away: Option<Instant> = None;
    loop {
        let mut watcher = Watcher::open(gateway, carrier, &["runs"]).await;
        let mut event = watcher.receive().await;
        // if the machine was suspended, the replica may be stopped before it has sent anything
        if let StreamEvent::Update(first) = &event {
            assert_eq!(
                (&first["kind"], describe(&first["result"])),
                (&"SNAPSHOT".into(), "RUNNING".to_owned())
            );
            noticed.open.fetch_add(1, Ordering::Relaxed);
            if let Some(since) = away {
                let mut outcome = noticed.outcome.lock().unwrap();
                outcome.longest_gap = outcome.longest_gap.max(since.elapsed());
            }
            event = watcher.until_over().await;
            noticed.open.fetch_sub(1, Ordering::Relaxed);
            away = None;
        }
        let at = Instant::now();
        away.get_or_insert(at);
        noticed.ended.lock().unwrap().push(at);
        let how = match (carrier, event) {
            (WebSocket, StreamEvent::Over(Some(code))) => format!("websocket {code}"),
            (Sse, StreamEvent::Over(None)) if watcher.is_whole() => "sse whole".to_owned(),
            (carrier, over) => format!("{carrier:?} {over:?}"),
        };
        *noticed.outcome.lock().unwrap().ends.entry(how).or_default() += 1;
    }
}

/// Requests at a constant rate, over connections that are reused as a proxy reuses them: the most recent first.
async fn requests(gateway: SocketAddr, pace: u32, noticed: Arc<Noticed>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let bodies = ["runs", "ended"].map(|id| {
        let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
        let body = json!({ "query": query, "variables": { "ref": external("mind", id) } }).to_string();
        Arc::<str>::from(format!(
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    });
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / pace);
    // a machine without CPU time sends fewer requests, not a burst
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    for body in bodies.iter().cycle() {
        ticks.tick().await;
        while let Some(done) = under_way.try_join_next() {
            done.unwrap();
        }
        if under_way.len() >= UNDER_WAY {
            under_way.join_next().await.unwrap().unwrap();
        }
        let (kept, body, noticed) = (Arc::clone(&kept), Arc::clone(body), Arc::clone(&noticed));
        under_way.spawn(async move {
            let used = take(&kept);
            let reused = used.is_some();
            let within = |response| tokio::time::timeout(LIMIT, response);
            let mut response = within(execute(gateway, used, &body)).await;
            let crossed = reused && matches!(&response, Ok(Err(why)) if why == CUT);
            if crossed {
                response = within(execute(gateway, None, &body)).await;
            }
            let response = response.unwrap_or_else(|_| Err("no answer at all".to_owned()));
            let mut outcome = noticed.outcome.lock().unwrap();
            outcome.requests += 1;
            outcome.crossed += usize::from(crossed);
            outcome.reused += usize::from(reused);
            match response {
                Ok(Some(socket)) => {
                    let mut kept = kept.lock().unwrap();
                    if kept.len() < KEPT {
                        kept.push(socket);
                    }
                }
                Ok(None) => {}
                Err(why) => outcome
                    .failed
                    .push(format!("on a connection {}: {why}", if reused { "reused" } else { "new" })),
            }
        });
    }
}

/// An idle connection that the peer has not closed.
fn take(kept: &Mutex<Vec<TcpStream>>) -> Option<TcpStream> {
    let mut kept = kept.lock().unwrap();
    loop {
        let socket = kept.pop()?;
        let peeked = SockRef::from(&socket).peek(&mut [MaybeUninit::uninit(); 1]);
        if peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            return Some(socket);
        }
    }
}

/// Sends one request, and returns the connection if it can be reused.
async fn execute(
    gateway: SocketAddr,
    used: Option<TcpStream>,
    request: &str,
) -> Result<Option<TcpStream>, String> {
    let say = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut socket = match used {
        Some(socket) => socket,
        None => TcpStream::connect(gateway).await.map_err(|error| say("connecting", error))?,
    };
    socket.write_all(request.as_bytes()).await.map_err(|error| say("sending", error))?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize =
                length.and_then(|length| length.parse().ok()).ok_or_else(|| format!("no length: {head}"))?;
            if body.len() >= length {
                let good = head.starts_with("http/1.1 200 ")
                    && !body.contains("\"errors\"")
                    && (body.contains("\"RUNNING\"") || body.contains("\"SUCCEEDED\""));
                let kept = !head.contains("connection: close");
                return if good { Ok(kept.then_some(socket)) } else { Err(format!("{head}\n{body}")) };
            }
        }
        let read = socket.read_buf(&mut answer).await.map_err(|error| say("reading", error))?;
        if read == 0 {
            return Err(if answer.is_empty() {
                CUT.to_owned()
            } else {
                "cut in the middle of the answer".to_owned()
            });
        }
    }
}
