//! Every reason for which a stream closes, caused on a real socket of a real process: the close code that the client
//! receives, and the log line. A reason without its row does not compile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use jobgate::config::ClientConfig;
use jobgate::inbound::streams::EndReason;
use jobgate::outbound::identity::keys;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate_simulator::{Addresses, MindBridgeJob, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OnceCell;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN, external};
use crate::support::streams::LIMIT;
use crate::support::tokens::{AUDIENCE, ISSUER, Issuer};
use crate::support::wire;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
/// An opcode that no frame has.
const RESERVED: u8 = 0x83;
/// Longest message of the gateways here, in bytes.
const MESSAGE: usize = 64 * 1024;

/// Streams of one client: more than any case needs at the same time, except the one about them.
const STREAMS: usize = 10;

/// A gateway process whose log is read.
struct Gateway {
    process: Process,
    public: SocketAddr,
    config: Scratch,
    simulator: Simulator,
    setup: Setup,
}

fn client(name: &str) -> String {
    let hash = ClientConfig::hex(&keys::hash(&format!("jg_{name}")));
    format!("{{ name: {name}, key_sha256: \"{hash}\", sources: [mind] }}")
}

impl Gateway {
    /// `streams` are the options that differ from long timeouts, `more` further sections.
    async fn start(streams: &str, more: &str) -> Self {
        let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
        setup.rest = format!(
            "telemetry: {{ log_format: json, log_level: 'info,jobgate::inbound::streams=debug' }}\n\
             streams: {{ max_streams_per_client: {STREAMS}, drain_window: 0s, {streams} }}\n{more}"
        );
        let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
        let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
        let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
        let mut process = Process::start(&["serve", "--config", config.path()], &env);
        let public = process.address("public").await;
        Self { process, public, config, simulator, setup }
    }

    /// An upgraded socket; `id` is the id of its request.
    async fn socket(&self, id: &str) -> Socket {
        let socket = TcpSocket::new_v4().unwrap();
        // so that the buffer of a peer that does not read is soon full
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        let mut socket = socket.connect(self.public).await.unwrap();
        let head = format!(
            "GET /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-request-id: {id}\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Socket(socket)
    }

    /// The same with an accepted `connection_init`.
    async fn open(&self, id: &str, credential: &str) -> Socket {
        let mut socket = self.socket(id).await;
        socket.say(&init(credential)).await;
        let mut ack = socket.frame().await;
        // on a slow machine a ping may arrive before the acknowledgement
        while ack == Some((PING, Vec::new())) {
            ack = socket.frame().await;
        }
        assert_eq!(ack, Some((TEXT, br#"{"type":"connection_ack"}"#.to_vec())));
        socket
    }

    /// Each log line about a closed stream, by its request id.
    fn ends(&self) -> BTreeMap<String, Value> {
        let output = self.process.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ends = lines.filter(|line| line["message"] == "stream ended");
        ends.map(|line| (line["request_id"].as_str().unwrap_or_default().to_owned(), line)).collect()
    }
}

fn init(credential: &str) -> Value {
    json!({ "type": "connection_init", "payload": { "authorization": format!("Bearer {credential}") } })
}

fn subscribe() -> Value {
    let query = "subscription($refs: [JobRef!]!) { jobUpdates(refs: $refs) { kind } }";
    let payload = json!({ "query": query, "variables": { "refs": [external("mind", "a")] } });
    json!({ "id": "1", "type": "subscribe", "payload": payload })
}

/// One frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | u8::try_from(short).unwrap()),
        Ok(long) => {
            frame.push(0x80 | 0x7e);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A WebSocket under the test's control, which answers nothing by itself.
struct Socket(TcpStream);

impl Socket {
    async fn say(&mut self, message: &Value) {
        self.send(TEXT, message.to_string().as_bytes()).await;
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        // a gateway that has read enough may have closed before it has read all
        self.0.write_all(&frame(first, payload)).await.ok();
    }

    /// The next frame; none when the connection is closed.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.0.read_u8().await.ok()?;
            let length = match self.0.read_u8().await.ok()? {
                126 => usize::from(self.0.read_u16().await.ok()?),
                127 => usize::try_from(self.0.read_u64().await.ok()?).ok()?,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        tokio::time::timeout(LIMIT, read).await.unwrap()
    }

    /// Reads until the connection closes: the close code, if there was one.
    async fn closed(mut self) -> Option<u16> {
        while let Some((first, payload)) = self.frame().await {
            if first == 0x88 {
                return payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
        None
    }
}

/// The gateways: one with long timeouts, and those with one short timeout each.
struct World {
    long_timeout: Gateway,
    pinging: Gateway,
    ageing: Gateway,
    hurried: Gateway,
    issuer: Issuer,
}

impl World {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let clients = ["alice", "bob", "dup", "carol"].map(client).join(", ");
        let more = format!("clients: [{clients}]\n{}", issuer.section("[mind]"));
        let known = format!("clients: [{}]", client("alice"));
        let short = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, header_timeout: 2s }";
        let long_timeout = Gateway::start("", &more).await;
        let pinging = Gateway::start("ping_interval: 1s", &known).await;
        let ageing = Gateway::start("max_age: 1s", &known).await;
        let hurried = Gateway::start("", &format!("{short}\n{known}")).await;
        Self { long_timeout, pinging, ageing, hurried, issuer }
    }

    /// The gateway where a reason is caused.
    fn place(&mut self, reason: EndReason) -> &mut Gateway {
        match reason.word() {
            "dead_peer" | "slow_peer" => &mut self.pinging,
            "too_old" => &mut self.ageing,
            "init_timeout" => &mut self.hurried,
            _ => &mut self.long_timeout,
        }
    }

    /// Causes a reason, and returns the code with which the client's socket was closed.
    async fn bring_about(&self, reason: EndReason) -> Option<u16> {
        let id = reason.word();
        let gateway = match id {
            "dead_peer" | "slow_peer" => &self.pinging,
            "too_old" => &self.ageing,
            "init_timeout" => &self.hurried,
            _ => &self.long_timeout,
        };
        let reason_after = async |message: Value| {
            let mut socket = gateway.socket(id).await;
            socket.say(&message).await;
            socket.closed().await
        };
        let sends = async |first: u8, payload: &[u8]| {
            let mut socket = gateway.socket(id).await;
            socket.send(first, payload).await;
            socket.closed().await
        };
        match reason {
            EndReason::Completed => {
                let headers = [
                    ("content-type", "application/json"),
                    ("accept", "text/event-stream"),
                    ("authorization", "Bearer jg_alice"),
                    ("x-request-id", id),
                ];
                let request = wire::request("POST", "/graphql", &headers, r#"{"query":"{ __typename }"}"#);
                let reply = wire::exchange(gateway.public, &request).await;
                assert!(reply.body.contains("event: complete"), "{}", reply.body);
                None
            }
            EndReason::ClientLeft => {
                drop(gateway.open(id, "jg_alice").await);
                None
            }
            EndReason::Drained => {
                let socket = gateway.open(id, "jg_alice").await;
                gateway.process.signal("TERM").await;
                socket.closed().await
            }
            EndReason::TooOld | EndReason::InitTimeout => gateway.socket(id).await.closed().await,
            EndReason::Overload => {
                let mut held = Vec::new();
                for _ in 0..STREAMS {
                    held.push(gateway.open("one-of-many", "jg_bob").await);
                }
                let result = reason_after(init("jg_bob")).await;
                drop(held);
                result
            }
            EndReason::CredentialExpired => {
                let token = self.issuer.token("dave", SystemClock.now().as_second() + 15);
                gateway.open(id, &token).await.closed().await
            }
            EndReason::Revoked => {
                let socket = gateway.open(id, "jg_carol").await;
                let mut setup = gateway.setup.clone();
                setup.rest = setup.rest.replace(&format!(", {}", client("carol")), "");
                assert_ne!(setup.rest, gateway.setup.rest);
                let simulator = &gateway.simulator;
                let yaml = setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url());
                std::fs::write(gateway.config.path(), yaml).unwrap();
                gateway.process.signal("HUP").await;
                socket.closed().await
            }
            EndReason::CredentialMissing => reason_after(json!({ "type": "connection_init" })).await,
            EndReason::CredentialMalformed => {
                reason_after(json!({ "type": "connection_init", "payload": { "authorization": 7 } })).await
            }
            EndReason::CredentialUnknown => reason_after(init("jg_nobody")).await,
            EndReason::CredentialUnverified => {
                reason_after(init(&self.issuer.signed("k2", &json!({ "iss": ISSUER, "aud": AUDIENCE }))))
                    .await
            }
            EndReason::Forbidden => {
                let mut socket = gateway.open(id, "jg_alice").await;
                let payload = json!({ "authorization": "Bearer jg_bob" });
                socket.say(&json!({ "type": "ping", "payload": payload })).await;
                socket.closed().await
            }
            // it answers no ping
            EndReason::DeadPeer => gateway.open(id, "jg_alice").await.closed().await,
            EndReason::SlowPeer => {
                let mut socket = gateway.open(id, "jg_alice").await;
                let echoed = json!({ "type": "ping", "payload": { "x": "x".repeat(MESSAGE - 100) } });
                let echoed = frame(TEXT, echoed.to_string().as_bytes());
                // each is answered with as many bytes, and none of them is read: until the gateway's buffer is full,
                // and it closes
                let flood = async { while socket.0.write_all(&echoed).await.is_ok() {} };
                tokio::time::timeout(LIMIT, flood).await.unwrap();
                None
            }
            EndReason::SecondInit => {
                let mut socket = gateway.open(id, "jg_alice").await;
                socket.say(&init("jg_alice")).await;
                socket.closed().await
            }
            EndReason::NotAcknowledged => reason_after(subscribe()).await,
            EndReason::DuplicateId => {
                let mut socket = gateway.open(id, "jg_dup").await;
                socket.say(&subscribe()).await;
                socket.say(&subscribe()).await;
                socket.closed().await
            }
            EndReason::NotJson => sends(TEXT, b"no").await,
            EndReason::NoType => reason_after(json!({ "id": "1" })).await,
            EndReason::LegacyProtocol => {
                reason_after(json!({ "type": "start", "id": "1", "payload": {} })).await
            }
            EndReason::UnknownType => reason_after(json!({ "type": "next", "id": "1" })).await,
            EndReason::WrongShape => reason_after(json!({ "type": "complete" })).await,
            EndReason::Binary => sends(BINARY, b"{}").await,
            EndReason::MessageTooBig => sends(TEXT, &vec![b' '; MESSAGE + 1]).await,
            EndReason::NotUtf8 => sends(TEXT, &[0xff]).await,
            EndReason::BrokenFrames => sends(RESERVED, b"").await,
        }
    }
}

/// Each reason with the close code that the client received, and the log line.
type Ends = Vec<(EndReason, Option<u16>, Option<Value>)>;

/// The outcome of one run, which takes long, for all tests of this file.
async fn ends() -> &'static Ends {
    static RUN: OnceCell<Ends> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(cause_each())).await
}

async fn cause_each() -> Ends {
    let mut world = World::start().await;
    let read = "issuer keys changed";
    world.long_timeout.process.find(read, |line| line.contains(read).then_some(())).await;
    // those that affect the whole gateway are last
    let last = [EndReason::Revoked, EndReason::Drained];
    let alone = EndReason::ALL.into_iter().filter(|reason| !last.contains(reason));
    let mut received: Vec<(EndReason, Option<u16>)> =
        join_all(alone.map(async |reason| (reason, world.bring_about(reason).await))).await;
    for reason in last {
        received.push((reason, world.bring_about(reason).await));
    }
    let mut ends = Vec::new();
    for (reason, code) in received {
        let gateway = world.place(reason);
        let written = async {
            let mut again = tokio::time::interval(Duration::from_millis(20));
            loop {
                again.tick().await;
                if let Some(line) = gateway.ends().remove(reason.word()) {
                    return line;
                }
            }
        };
        ends.push((reason, code, tokio::time::timeout(LIMIT, written).await.ok()));
    }
    ends
}

#[tokio::test]
async fn each_end_reason_sets_its_close_code() {
    let ends = ends().await;
    assert_eq!(ends.len(), EndReason::ALL.len());
    for (reason, code, _) in ends {
        assert_eq!(*code, reason.close().map(|(code, _)| code), "{reason:?}");
    }
}

#[tokio::test]
async fn each_end_reason_is_logged_in_one_line() {
    for (reason, _, line) in ends().await {
        let Some(line) = line else { panic!("no line: {reason:?}") };
        let transport = if *reason == EndReason::Completed { "sse" } else { "websocket" };
        assert_eq!(
            (&line["reason"], &line["transport"]),
            (&reason.word().into(), &transport.into()),
            "{line}"
        );
        assert!(line["age_ms"].is_u64() && line["updates"].is_u64(), "{line}");
        assert!(*reason != EndReason::Completed || line["updates"] == 1, "{line}");
    }
}
