//! Which documents are executed, by every transport alike: those of a manifest, persisted ones, and none with
//! introspection where that is disabled.

use std::net::SocketAddr;

use futures_util::SinkExt as _;
use jobgate_simulator::SimUpstream;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{QUERY, in_url, receive, rig, send, socket};
use crate::support::process::run;
use crate::support::scratch::Scratch;
use crate::support::server::{Rig, Setup};

const TRANSPORTS: [&str; 5] = ["post", "get", "websocket", "sse", "multipart"];

/// Sends a request by one transport: `data`, or the code of the first error.
async fn execute(rig: &Rig, transport: &str, request: &Value) -> Result<Value, String> {
    let to: SocketAddr = rig.public;
    let answer = match transport {
        "get" => {
            let pairs = request.as_object().unwrap().iter().map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
                format!("{name}={value}")
            });
            let path = format!("/graphql?{}", pairs.collect::<Vec<_>>().join("&"));
            send(to, "GET", &path, &[("accept", "application/json")], "").await.json()
        }
        "websocket" => {
            let mut socket = socket(to, "jg_nobody_is_asked").await;
            let message = json!({ "id": "1", "type": "subscribe", "payload": request });
            socket.send(Message::text(message.to_string())).await.unwrap();
            let mut received = receive(&mut socket).await;
            match received["type"].as_str().unwrap() {
                "error" => json!({ "errors": received["payload"].take() }),
                _ => received["payload"].take(),
            }
        }
        _ => {
            let accept = match transport {
                "sse" => "text/event-stream",
                "multipart" => "multipart/mixed;subscriptionSpec=\"1.0\"",
                _ => "application/json",
            };
            let headers = [("content-type", "application/json"), ("accept", accept)];
            let reply = send(to, "POST", "/graphql", &headers, &request.to_string()).await;
            let line = reply.body.lines().find_map(|line| {
                let start = line.find('{')?;
                serde_json::from_str::<Value>(line.get(start..)?).ok().filter(Value::is_object)
            });
            assert!(line.is_some(), "{transport}: no json in {}", reply.body);
            let answer = line.unwrap();
            answer.get("payload").filter(|payload| payload.is_object()).cloned().unwrap_or(answer)
        }
    };
    match answer["errors"][0]["extensions"]["code"].as_str() {
        Some(code) => Err(code.to_owned()),
        None => Ok(answer["data"].clone()),
    }
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn apollo(id: &str) -> Value {
    json!({ "persistedQuery": { "version": 1, "sha256Hash": id } })
}

#[tokio::test]
async fn a_manifest_restricts_every_transport_to_its_documents() {
    let subscription = r#"subscription { jobUpdates(refs: [{ external: { source: "mind", externalId: "done" } }]) { kind } }"#;
    let id = format!("sha256:{}", sha256(QUERY));
    let manifest = Scratch::new(&json!({ (id.clone()): QUERY, "watch": subscription }).to_string());
    let option = format!("graphql: {{ trusted_documents: {{ manifest: {} }} }}", manifest.path());
    let rig = rig(option).await;
    let refused = Err("PERSISTED_QUERY_NOT_IN_LIST".to_owned());
    for transport in TRANSPORTS {
        for request in [
            json!({ "query": "{ __typename }" }),
            json!({ "query": QUERY }),
            json!({ "query": format!("{QUERY} "), "documentId": id }),
            json!({ "documentId": "sha256:0" }),
            json!({ "extensions": apollo(&sha256("{ __typename }")) }),
            json!({ "query": "{ __typename }", "extensions": apollo(&sha256("{ __typename }")) }),
        ] {
            assert_eq!(execute(&rig, transport, &request).await, refused, "{transport} {request}");
        }
    }
    assert_eq!(rig.upstreams.record(), []);
    for transport in TRANSPORTS {
        for request in [
            json!({ "documentId": id }),
            json!({ "documentId": sha256(QUERY) }),
            json!({ "extensions": apollo(&sha256(QUERY)) }),
            json!({ "query": QUERY, "documentId": id }),
        ] {
            let answer = execute(&rig, transport, &request).await.unwrap();
            assert_eq!(answer["job"]["__typename"], "MindBridgeJob", "{transport} {request}");
        }
    }
    for transport in ["websocket", "sse", "multipart"] {
        let answer = execute(&rig, transport, &json!({ "documentId": "watch" })).await.unwrap();
        assert_eq!(answer["jobUpdates"]["kind"], "SNAPSHOT", "{transport}");
    }
    assert!(rig.calls(SimUpstream::MindBridge) > 0);
}

/// The request with the hash of the query, and the one with both.
fn by_hash() -> [Value; 2] {
    let hash = apollo(&sha256(QUERY));
    [json!({ "extensions": hash }), json!({ "query": QUERY, "extensions": hash })]
}

const PERSISTED: &str = "graphql: { persisted_queries: auto }";

#[tokio::test]
async fn persisted_queries_are_not_supported_unless_configured() {
    let rig = rig(String::new()).await;
    let [hash, both] = by_hash();
    for transport in TRANSPORTS {
        assert_eq!(execute(&rig, transport, &hash).await, Err("PERSISTED_QUERY_NOT_SUPPORTED".to_owned()));
        assert!(execute(&rig, transport, &both).await.is_ok(), "{transport}: an unsupported extension");
    }
}

#[tokio::test]
async fn a_valid_document_sent_with_its_hash_is_persisted() {
    let [hash, both] = by_hash();
    for first in TRANSPORTS {
        let rig = rig(PERSISTED.to_owned()).await;
        let unknown = Err("PERSISTED_QUERY_NOT_FOUND".to_owned());
        assert_eq!(execute(&rig, first, &hash).await, unknown, "{first}");
        assert!(execute(&rig, first, &both).await.is_ok(), "{first}");
        for transport in TRANSPORTS {
            let answer = execute(&rig, transport, &hash).await.unwrap();
            assert_eq!(answer["job"]["__typename"], "MindBridgeJob", "{first} registered {transport}");
        }
    }
}

#[tokio::test]
async fn an_invalid_document_or_hash_is_not_persisted() {
    let [hash, _] = by_hash();
    let rig = rig(PERSISTED.to_owned()).await;
    let unknown = Err("PERSISTED_QUERY_NOT_FOUND".to_owned());
    for transport in TRANSPORTS {
        let wrong = json!({ "query": "{ __typename }", "extensions": apollo(&sha256(QUERY)) });
        assert_eq!(execute(&rig, transport, &wrong).await, Err("BAD_REQUEST".to_owned()), "{transport}");
        assert_eq!(execute(&rig, transport, &hash).await, unknown, "{transport}");
        for bad in ["{ nosuchfield }", "{ broken", "{ a: __typename "] {
            let bad = json!({ "query": bad, "extensions": apollo(&sha256(bad)) });
            assert!(execute(&rig, transport, &bad).await.is_err());
            assert_eq!(execute(&rig, transport, &json!({ "extensions": bad["extensions"] })).await, unknown);
        }
    }
}

/// Documents that read the schema.
const INTROSPECTING: [&str; 9] = [
    "{ __schema { queryType { name } } }",
    r#"{ __type(name: "Query") { name } }"#,
    r#"{ harmless: __type(name: "Query") { name } }"#,
    "{ ... on Query { s: __schema { types { name } } } }",
    r#"{ ...f } fragment f on Query { ...g } fragment g on Query { __type(name: "Job") { fields { name } } }"#,
    "query A { __typename } query B { __schema { types { name } } }",
    "{ __schema @include(if: true) { types { name } } }",
    "subscription { __schema { types { name } } }",
    r#"mutation { __type(name: "Query") { name } }"#,
];

#[tokio::test]
async fn a_manifest_with_a_disabled_introspection_is_rejected() {
    let listed: serde_json::Map<String, Value> =
        INTROSPECTING.iter().map(|document| (sha256(document), (*document).into())).collect();
    let manifest = Scratch::new(&Value::Object(listed).to_string());
    let rest = format!(
        "graphql: {{ introspection: off, persisted_queries: auto, trusted_documents: {{ manifest: {}, only: true }} }}",
        manifest.path()
    );
    let setup = Setup { rest, ..Setup::default() };
    let file = Scratch::new(&setup.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
    let (code, output) =
        run(&["serve", "--config", file.path()], &[("MIND_TOKEN", "t"), ("METRICS_KEY", "k")]).await;
    assert!(
        code != Some(0) && output.contains("graphql.trusted_documents.manifest: the document"),
        "{output}"
    );
}

#[tokio::test]
async fn disabled_introspection_is_rejected_on_every_transport() {
    let rig = rig("graphql: { introspection: off, persisted_queries: auto }".to_owned()).await;
    for transport in TRANSPORTS {
        for document in INTROSPECTING {
            let mut requests = vec![
                json!({ "query": document }),
                json!({ "query": document, "extensions": apollo(&sha256(document)) }),
                json!({ "extensions": apollo(&sha256(document)) }),
            ];
            if document.contains("query A") {
                for request in &mut requests {
                    request["operationName"] = "A".into();
                }
            }
            for request in requests {
                let answer = execute(&rig, transport, &request).await;
                let code = answer.unwrap_err();
                assert!(
                    [
                        "GRAPHQL_VALIDATION_FAILED",
                        "PERSISTED_QUERY_NOT_FOUND",
                        "METHOD_NOT_ALLOWED",
                        "SUBSCRIPTION_NEEDS_STREAM"
                    ]
                    .contains(&code.as_str()),
                    "{transport} {request}: {code}"
                );
            }
        }
    }
}

#[tokio::test]
async fn typename_is_answered_while_introspection_is_disabled() {
    let rig = rig("graphql: { introspection: off, persisted_queries: auto }".to_owned()).await;
    let url = in_url("{ __typename }");
    assert_eq!(send(rig.public, "GET", &url, &[], "").await.data()["__typename"], "Query");
}
