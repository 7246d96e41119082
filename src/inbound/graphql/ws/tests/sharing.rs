//! What equal subscriptions share, and what they must not.

use super::*;

impl House {
    async fn client_of(&self, key: &str) -> Client {
        let mut client = self.socket().await;
        let payload = json!({ "authorization": format!("Bearer {key}") });
        client.say(&json!({ "type": "connection_init", "payload": payload }).to_string()).await;
        client.hear().await;
        client
    }
}

impl Client {
    async fn ask(&mut self, query: &str, variables: Value) -> Value {
        let payload = json!({ "query": query, "variables": variables });
        self.say(&json!({ "id": "1", "type": "subscribe", "payload": payload }).to_string()).await;
        let said = self.hear().await;
        assert_eq!(said["type"], "next", "{said}");
        said["payload"].clone()
    }
}

/// What is followed tells no two apart, and neither does who follows; what the answer shows does.
#[tokio::test(start_paused = true)]
async fn equal_subscriptions_share_a_plan_that_goes_with_the_last_of_them() {
    let query = "subscription($about: String, $text: String, $with: Boolean! = false) {
        m: me(about: $about) { name ...E more: echo @include(if: $with) } }
        fragment E on Me { echo(text: $text) }";
    let house = house(StreamSettings::default());
    let mut clients = Vec::new();
    for (key, variables, plans, told) in [
        ("key", json!({}), 1, json!({ "name": "ui", "echo": null })),
        ("other", json!({ "about": "b" }), 1, json!({ "name": "other", "echo": null })),
        ("other", json!({ "text": null }), 2, json!({ "name": "other", "echo": null })),
        ("other", json!({ "text": "x" }), 3, json!({ "name": "other", "echo": "x" })),
        ("key", json!({ "about": "c", "text": "x" }), 3, json!({ "name": "ui", "echo": "x" })),
        ("key", json!({ "with": true }), 4, json!({ "name": "ui", "echo": null, "more": null })),
    ] {
        let mut client = house.client_of(key).await;
        let answer = client.ask(query, variables.clone()).await;
        assert_eq!((answer, house.door.plans()), (json!({ "data": { "m": told } }), plans), "{variables}");
        clients.push(client);
    }
    drop(clients);
    house.idle().await;
    assert_eq!(house.door.plans(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_stays_with_the_answer_it_belongs_to() {
    let house = house(StreamSettings::default());
    let query = "subscription { me { name fault } }";
    let mut clients =
        [house.client_of("key").await, house.client_of("other").await, house.client_of("key").await];
    for client in &mut clients {
        let answer = client.ask(query, json!({})).await;
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer["errors"][0]["path"], json!(["me", "fault"]), "{answer}");
    }
    assert_eq!(house.door.plans(), 1);
}

/// A document in which every root field has a stream, a refusal or a place of the engine's own.
#[tokio::test(start_paused = true)]
async fn several_root_fields_are_each_told_as_they_come() {
    let house = house(StreamSettings::default());
    let mut client = house.client_of("key").await;
    client
        .subscribe("1", "subscription { a: me { name } b: newest refused c: count(to: 1) d: me { name } }")
        .await;
    house.value.send_replace(7);
    let mut heard = Vec::new();
    for _ in 0..5 {
        let said = client.hear().await;
        assert_eq!(said["type"], "next", "{said}");
        let data = said["payload"]["data"].as_object().and_then(|data| data.keys().next().cloned());
        heard.push(data.unwrap_or_else(|| said["payload"]["errors"][0]["path"][0].to_string()));
    }
    heard.sort_unstable();
    assert_eq!(heard, ["\"refused\"", "a", "b", "c", "d"]);
    client.say(r#"{"type":"complete","id":"1"}"#).await;
    client.silence().await;
    assert_eq!((house.running(), house.door.plans()), (0, 0));
}
