//! What equal subscriptions must not share.

use super::*;

impl TestGraphql {
    async fn client_of(&self, key: &str) -> Client {
        let mut client = self.socket().await;
        let payload = json!({ "authorization": format!("Bearer {key}") });
        client.say(&json!({ "type": "connection_init", "payload": payload }).to_string()).await;
        client.receive().await;
        client
    }
}

impl Client {
    async fn subscribe_now(&mut self, query: &str, variables: Value) -> Value {
        let payload = json!({ "query": query, "variables": variables });
        self.say(&json!({ "id": "1", "type": "subscribe", "payload": payload }).to_string()).await;
        let message = self.receive().await;
        assert_eq!(message["type"], "next", "{message}");
        message["payload"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn error_appears_once_in_each_response() {
    let fixture = fixture(StreamSettings::default());
    let query = "subscription { me { name fault } }";
    let mut clients =
        [fixture.client_of("key").await, fixture.client_of("other").await, fixture.client_of("key").await];
    for client in &mut clients {
        let answer = client.subscribe_now(query, json!({})).await;
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer["errors"][0]["path"], json!(["me", "fault"]), "{answer}");
    }
}

/// A document in which every root field has a stream, a refusal or a value of the engine.
#[tokio::test(start_paused = true)]
async fn each_root_field_is_delivered_independently() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.client_of("key").await;
    client
        .subscribe("1", "subscription { a: me { name } b: newest refused c: count(to: 1) d: me { name } }")
        .await;
    fixture.value.send_replace(7);
    let mut received = Vec::new();
    for _ in 0..5 {
        let message = client.receive().await;
        assert_eq!(message["type"], "next", "{message}");
        let data = message["payload"]["data"].as_object().and_then(|data| data.keys().next().cloned());
        received.push(data.unwrap_or_else(|| message["payload"]["errors"][0]["path"][0].to_string()));
    }
    received.sort_unstable();
    assert_eq!(received, ["\"refused\"", "a", "b", "c", "d"]);
    client.say(r#"{"type":"complete","id":"1"}"#).await;
    client.silence().await;
    assert_eq!(fixture.running(), 0);
}
