//! Sockets in memory on a paused clock: a client of another library at one end, the session or the whole router at the
//! other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::inbound::graphql::testing::{TestGraphql, fixture};
use crate::inbound::streams::StreamSettings;

mod credentials;
mod misuse;
mod sharing;
mod spans;
mod time;
mod upgrades;

const INIT: &str = r#"{"type":"connection_init"}"#;
const SECOND: Duration = Duration::from_secs(1);

struct Client {
    socket: WebSocketStream<DuplexStream>,
    opened: Instant,
}

impl TestGraphql {
    /// A socket that is upgraded and has sent nothing.
    async fn socket(&self) -> Client {
        self.narrow_socket(64 * 1024).await
    }

    /// The same, with a buffer of this many bytes in between.
    async fn narrow_socket(&self, bytes: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let guard = self.streams.open(Transport::WebSocket, None).unwrap();
        let opening =
            session::Opening { endpoint: self.endpoint.clone(), guard, principal: None, room: None };
        self.tasks.spawn(session::run(Box::new(opening), theirs));
        let socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        Client { socket, opened: Instant::now() }
    }

    /// A socket that is acknowledged.
    async fn ready(&self) -> Client {
        let mut client = self.socket().await;
        client.say(INIT).await;
        assert_eq!(client.receive().await, json!({ "type": "connection_ack" }));
        client
    }

    /// This many sockets of one client, each with a running subscription.
    async fn subscribers(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = self.ready().await;
            client.subscribe("1", "subscription{quiet}").await;
            clients.push(client);
        }
        clients[0].silence().await;
        assert_eq!(self.running(), count);
        clients
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Waits until every session has ended.
    async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        assert_eq!((self.running(), self.streams.counts().websocket), (0, 0));
    }
}

impl Client {
    async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        let message = json!({ "id": id, "type": "subscribe", "payload": { "query": query } });
        self.say(&message.to_string()).await;
    }

    /// The next text; control frames are skipped.
    async fn receive(&mut self) -> Value {
        loop {
            let message = self.socket.next().await.unwrap().unwrap();
            if !message.is_ping() && !message.is_pong() {
                assert!(message.is_text(), "{message:?}");
                return serde_json::from_str(message.to_text().unwrap()).unwrap();
            }
        }
    }

    /// The close code and the time since the opening, after which nothing comes; no code for an aborted connection.
    async fn end(&mut self) -> (Option<u16>, Duration) {
        let mut code = None;
        let mut at = None;
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Close(frame) = message {
                let frame = frame.unwrap();
                assert!(!frame.reason.is_empty(), "a code without a message");
                code = Some(frame.code.into());
                at = Some(self.opened.elapsed());
            }
        }
        // as every client does when the server has disconnected
        self.socket.get_mut().shutdown().await.unwrap();
        (code, at.unwrap_or_else(|| self.opened.elapsed()))
    }

    /// Nothing comes for a second.
    async fn silence(&mut self) {
        let received = tokio::time::timeout(SECOND, self.socket.next()).await;
        assert!(received.is_err(), "{received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn socket_answers_a_ping_before_and_after_its_initialization() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.socket().await;
    client.say(r#"{"type":"ping","payload":{"at":1}}"#).await;
    assert_eq!(client.receive().await, json!({ "type": "pong", "payload": { "at": 1 } }));
    client.say(r#"{"type":"connection_init","payload":{"authorization":"Bearer key","other":null}}"#).await;
    assert_eq!(client.receive().await, json!({ "type": "connection_ack" }));
    client.say(r#"{"type":"ping"}"#).await;
    assert_eq!(client.receive().await, json!({ "type": "pong" }));
}

#[tokio::test(start_paused = true)]
async fn socket_ignores_a_pong_and_an_unknown_complete() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    client.say(r#"{"type":"pong","payload":null}"#).await;
    client.say(r#"{"type":"complete","id":"never"}"#).await;
    client.silence().await;
    client.subscribe("1", "{hello}").await;
    assert_eq!(client.receive().await["type"], "next");
}

#[tokio::test(start_paused = true)]
async fn socket_runs_queries_mutations_and_subscriptions() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.socket().await;
    client.say(r#"{"type":"connection_init","payload":{"authorization":"Bearer key"}}"#).await;
    assert_eq!(client.receive().await["type"], "connection_ack");
    for (query, answers) in [
        ("{hello}", vec![json!({ "hello": "hello ui" })]),
        ("mutation{touch}", vec![json!({ "touch": true })]),
        ("subscription{count(to:2)}", vec![json!({ "count": 1 }), json!({ "count": 2 })]),
        ("subscription{count(to:0)}", vec![]),
    ] {
        // the same id each time: it is free again once its operation is complete
        client.subscribe("a\"b", query).await;
        for data in answers {
            let expected = json!({ "id": "a\"b", "type": "next", "payload": { "data": data } });
            assert_eq!(client.receive().await, expected, "{query}");
        }
        assert_eq!(client.receive().await, json!({ "id": "a\"b", "type": "complete" }), "{query}");
    }
    client.socket.close(None).await.unwrap();
    while client.socket.next().await.is_some() {}
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn rejected_operation_gets_an_error() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    for (id, query, code) in [
        ("1", "subscription{", "GRAPHQL_PARSE_FAILED"),
        ("2", "subscription{unknown}", "GRAPHQL_VALIDATION_FAILED"),
        ("3", "subscription{count(to:\"x\")}", "GRAPHQL_VALIDATION_FAILED"),
        ("4", "subscription($n:Int!){count(to:$n)}", "BAD_USER_INPUT"),
        ("5", "query A{hello} query B{hello}", "OPERATION_RESOLUTION_FAILURE"),
        (
            "6",
            "{a:hello b:hello c:hello d:hello e:hello f:hello g:hello h:hello i:hello j:hello k:hello l:hello m:hello n:hello o:hello p:hello q:hello r:hello s:hello t:hello u:hello}",
            "DOCUMENT_TOO_COMPLEX",
        ),
    ] {
        client.subscribe(id, query).await;
        let message = client.receive().await;
        assert_eq!((&message["id"], &message["type"]), (&json!(id), &json!("error")), "{query}");
        assert_eq!(message["payload"][0]["extensions"]["code"], code, "{query}");
        client.silence().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_operation_frees_its_id() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    for query in ["subscription{", "subscription{unknown}", "query A{hello} query B{hello}"] {
        client.subscribe("1", query).await;
        assert_eq!(client.receive().await["type"], "error", "{query}");
    }
    client.subscribe("1", "{hello}").await;
    assert_eq!(client.receive().await["type"], "next");
}

#[tokio::test(start_paused = true)]
async fn error_of_an_executed_operation_is_an_answer() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    client.subscribe("1", "subscription{half}").await;
    let received = [client.receive().await, client.receive().await, client.receive().await];
    assert_eq!(received[0]["payload"], json!({ "data": { "half": 1 } }));
    assert_eq!(received[1]["payload"]["errors"][0]["message"], "n is odd");
    assert_eq!(received[2]["type"], "complete");
    client.subscribe("1", "subscription{refused}").await;
    let message = client.receive().await;
    assert!(message["payload"].to_string().contains("n is odd"), "{message}");
}

/// A client with three subscriptions that deliver nothing.
async fn with_three_operations(fixture: &TestGraphql) -> Client {
    let mut client = fixture.ready().await;
    for id in ["1", "2", "3"] {
        client.subscribe(id, "subscription{quiet}").await;
    }
    client.silence().await;
    assert_eq!(fixture.running(), 3);
    client
}

#[tokio::test(start_paused = true)]
async fn complete_ends_one_operation() {
    let fixture = fixture(StreamSettings::default());
    let mut client = with_three_operations(&fixture).await;
    client.say(r#"{"type":"complete","id":"2"}"#).await;
    client.silence().await;
    assert_eq!(fixture.running(), 2);
    client.subscribe("2", "subscription{count(to:1)}").await;
    assert_eq!(client.receive().await["type"], "next", "its id is free");
}

#[tokio::test(start_paused = true)]
async fn disconnect_ends_all_operations() {
    let fixture = fixture(StreamSettings::default());
    drop(with_three_operations(&fixture).await);
    fixture.idle().await;
}

fn limited() -> StreamSettings {
    StreamSettings {
        max_operations: 2,
        max_operations_per_client: 3,
        max_streams_per_client: 2,
        ..StreamSettings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn operation_over_a_limit_is_refused() {
    let fixture = fixture(limited());
    let mut first = fixture.ready().await;
    let mut second = fixture.ready().await;
    for (client, id, expected) in [
        (0, "1", None),
        (0, "2", None),
        (0, "3", Some("max_operations")),
        (1, "1", None),
        (1, "2", Some("max_operations_per_client")),
    ] {
        let client = if client == 0 { &mut first } else { &mut second };
        client.subscribe(id, "subscription{quiet}").await;
        let Some(limit) = expected else {
            client.silence().await;
            continue;
        };
        let message = client.receive().await;
        assert_eq!(message["type"], "error");
        let extensions = &message["payload"][0]["extensions"];
        assert_eq!(
            (&extensions["code"], &extensions["limit"]),
            (&json!("TOO_MANY_OPERATIONS"), &json!(limit))
        );
    }
    assert_eq!(fixture.running(), 3, "the others continue");
}

#[tokio::test(start_paused = true)]
async fn ended_operation_is_not_counted_any_more() {
    let fixture = fixture(limited());
    let mut client = fixture.ready().await;
    for id in ["1", "2"] {
        client.subscribe(id, "subscription{quiet}").await;
    }
    client.subscribe("3", "subscription{quiet}").await;
    assert_eq!(client.receive().await["type"], "error");
    client.say(r#"{"type":"complete","id":"1"}"#).await;
    client.silence().await;
    client.subscribe("4", "subscription{count(to:1)}").await;
    assert_eq!(client.receive().await["type"], "next");
}

#[tokio::test(start_paused = true)]
async fn socket_over_the_limit_of_its_client_is_closed_with_1013() {
    let fixture = fixture(limited());
    let _held = [fixture.ready().await, fixture.ready().await];
    let mut third = fixture.socket().await;
    third.say(INIT).await;
    assert_eq!(third.end().await.0, Some(1013));
    let mut other = fixture.socket().await;
    other.say(r#"{"type":"connection_init","payload":{"Authorization":"Bearer other"}}"#).await;
    assert_eq!(other.receive().await["type"], "connection_ack", "another client is not affected");
}

#[tokio::test(start_paused = true)]
async fn revocation_closes_only_the_clients_sockets_with_4403() {
    let fixture = fixture(StreamSettings::default());
    let mut others = fixture.subscribers(50).await;
    let mut revoked = fixture.socket().await;
    revoked.say(r#"{"type":"connection_init","payload":{"authorization":"Bearer other"}}"#).await;
    revoked.receive().await;
    fixture.streams.review(|holder| holder.name() != "other");
    assert_eq!(revoked.end().await.0, Some(4403));
    others[0].silence().await;
    assert_eq!(fixture.running(), 50, "the sockets of another client stay open");
}

#[tokio::test(start_paused = true)]
async fn drain_closes_sockets_with_1012_over_half_the_window() {
    let fixture = fixture(StreamSettings::default());
    let mut clients = fixture.subscribers(50).await;
    let start = Instant::now();
    let drained = async {
        fixture.streams.drain(SECOND * 10).await;
        fixture.idle().await;
        start.elapsed()
    };
    let ends = clients.iter_mut().map(async |client| (client.end().await.0, start.elapsed()));
    let (took, ends) = tokio::join!(drained, futures_util::future::join_all(ends));
    assert!(took <= SECOND * 5 + Duration::from_millis(10), "{took:?}");
    assert!(ends.iter().all(|(code, _)| *code == Some(1012)), "{ends:?}");
    let early = ends.iter().filter(|(_, at)| *at < SECOND * 5 / 2).count();
    assert!((24..=26).contains(&early), "{early} of 50 in the first half");
}
