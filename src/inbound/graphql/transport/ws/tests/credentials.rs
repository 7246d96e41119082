//! Sockets whose credential expires, is renewed, or is revoked. No test waits.

use super::*;

const RENEWED: &str = r#"{"type":"pong","payload":{"renewed":true}}"#;

fn ping(token: &str) -> String {
    json!({ "type": "ping", "payload": { "Authorization": format!("Bearer {token}") } }).to_string()
}

impl TestGraphql {
    /// A socket that is acknowledged with this token and has an operation without updates.
    async fn with_token(&self, token: &str) -> Client {
        let mut client = self.socket().await;
        let payload = json!({ "authorization": format!("Bearer {token}") });
        client.say(&json!({ "type": "connection_init", "payload": payload }).to_string()).await;
        assert_eq!(client.receive().await, json!({ "type": "connection_ack" }));
        client.subscribe("1", "subscription{quiet}").await;
        client
    }
}

#[tokio::test(start_paused = true)]
async fn socket_closes_with_4403_when_its_credential_expires() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.with_token("key-90").await;
    let (code, lasted) = client.end().await;
    assert_eq!(code, Some(4403));
    assert!((SECOND * 90..SECOND * 91).contains(&lasted), "{lasted:?}");
    // the clock does not go back: an expired token is acknowledged and closed
    let mut late = fixture.with_token("key-90").await;
    assert_eq!(late.end().await.0, Some(4403));
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn credential_in_a_ping_sets_the_socket_lifetime() {
    // the client of these tests answers a ping only while it reads
    let fixture = fixture(StreamSettings { ping_interval: SECOND * 600, ..StreamSettings::default() });
    let mut client = fixture.with_token("key-60").await;
    for (at, token) in [(50, "key-120"), (110, "key-200"), (150, "key-180")] {
        tokio::time::sleep_until(client.opened + SECOND * at).await;
        client.say(&ping(token)).await;
        assert_eq!(client.receive().await, serde_json::from_str::<Value>(RENEWED).unwrap(), "{token}");
        assert_eq!(fixture.running(), 1, "running operations continue");
    }
    let (code, lasted) = client.end().await;
    assert_eq!(code, Some(4403));
    assert!((SECOND * 180..SECOND * 181).contains(&lasted), "{lasted:?}");
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn invalid_credential_renewal_closes_the_socket() {
    let fixture = fixture(StreamSettings::default());
    for (what, message, expected) in [
        ("an unknown credential", ping("wrong"), 4401),
        ("another client", ping("other"), 4403),
        ("another grant", ping("more-600"), 4403),
        ("no text", r#"{"type":"ping","payload":{"authorization":7}}"#.to_owned(), 4401),
        ("no bearer", r#"{"type":"ping","payload":{"authorization":"Basic key-600"}}"#.to_owned(), 4401),
        (
            "two of them",
            r#"{"type":"ping","payload":{"authorization":"Bearer key","headers":{"Authorization":"Bearer other"}}}"#
                .to_owned(),
            4401,
        ),
    ] {
        let mut client = fixture.with_token("key-600").await;
        client.say(&message).await;
        let (code, lasted) = client.end().await;
        assert_eq!((code, lasted < SECOND), (Some(expected), true), "{what}: {lasted:?}");
    }
    let mut early = fixture.socket().await;
    early.say(&ping("key-600")).await;
    assert_eq!(early.end().await.0, Some(4403), "before connection_init there is nothing to renew");
}

#[tokio::test(start_paused = true)]
async fn ping_with_another_payload_renews_no_credential() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.with_token("key-600").await;
    client.say(r#"{"type":"ping","payload":{"author":"Bearer key"}}"#).await;
    assert_eq!(client.receive().await, json!({ "type": "pong", "payload": { "author": "Bearer key" } }));
    drop(client);
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn revoked_credential_closes_open_sockets() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.with_token("key-600").await;
    tokio::time::sleep(SECOND * 10).await;
    fixture.guests.shut();
    assert_eq!(fixture.streams.review(|holder| holder.name() != "ui"), 1);
    let (code, lasted) = client.end().await;
    assert_eq!((code, lasted < SECOND * 11), (Some(4403), true));
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn credential_revoked_during_authentication_closes_the_socket() {
    let fixture = fixture(StreamSettings::default());
    fixture.guests.shut();
    let mut renewing = fixture.socket().await;
    renewing.say(INIT).await;
    assert_eq!(renewing.end().await.0, Some(4403));
    fixture.idle().await;
}
