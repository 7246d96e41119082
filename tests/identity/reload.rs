//! Reloads of the clients and issuers: what each revokes, and what stays active.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Gateway, client, ended, token};
use crate::support::server::{ANY, external};
use crate::support::streams::{LIMIT, Sse, WebSocket};
use crate::support::tokens::Issuer;
use crate::support::wire;

/// The clients `alice` and `bob`, as items of the configuration.
fn alice_and_bob() -> [String; 2] {
    ["alice", "bob"].map(|name| client(name, "[mind]"))
}

/// A gateway with the clients `alice` and `bob` and this issuer, and the section of the issuer.
async fn with_clients(issuer: &Issuer) -> (Gateway, String) {
    let (jwt, [alice, bob]) = (issuer.section("[mind]"), alice_and_bob());
    let mut gateway = Gateway::start(&format!("{jwt}\nclients: [{alice}, {bob}]")).await;
    gateway.wait_for_keys().await;
    (gateway, jwt)
}

#[tokio::test]
async fn sighup_revokes_only_the_removed_client() {
    let issuer = Issuer::start().await;
    let (mut gateway, jwt) = with_clients(&issuer).await;
    let token = token(&issuer, 600);
    let mut gone = Vec::new();
    for carrier in [WebSocket, Sse] {
        gone.push((carrier, gateway.watch(carrier, "jg_alice").await));
    }
    let mut others = [gateway.watch(WebSocket, "jg_bob").await, gateway.watch(Sse, &token).await];
    let at = Instant::now();
    let [_, bob] = alice_and_bob();
    gateway.reload(&format!("{jwt}\nclients: [{bob}]"), "clients=1 issuers=1 ended=2").await;
    for (carrier, stream) in &mut gone {
        assert_eq!(stream.receive().await, ended(*carrier), "{carrier:?}");
    }
    // the promised second is tested on the paused clock; a busy machine may be slower
    assert!(at.elapsed() < LIMIT, "{:?}", at.elapsed());
    for (credential, answer) in
        [("jg_alice", "UNAUTHENTICATED"), ("jg_bob", "RUNNING"), (token.as_str(), "RUNNING")]
    {
        assert_eq!(gateway.execute(credential).await, answer, "{credential}");
    }
    gateway.complete_job();
    for stream in &mut others {
        assert_eq!(stream.short().await, "ENDED SUCCEEDED", "unaffected clients received nothing");
    }
}

#[tokio::test]
async fn sighup_revokes_only_the_tokens_of_a_removed_issuer() {
    let issuer = Issuer::start().await;
    let (mut gateway, _) = with_clients(&issuer).await;
    let token = token(&issuer, 600);
    let mut signed = gateway.watch(Sse, &token).await;
    let mut stays = gateway.watch(WebSocket, "jg_bob").await;
    let [alice, bob] = alice_and_bob();
    gateway.reload(&format!("clients: [{alice}, {bob}]"), "clients=2 issuers=0 ended=1").await;
    assert_eq!(signed.receive().await, ended(Sse));
    assert_eq!(
        (gateway.execute("jg_alice").await, gateway.execute(&token).await),
        ("RUNNING".into(), "UNAUTHENTICATED".into())
    );
    gateway.complete_job();
    assert_eq!(stays.short().await, "ENDED SUCCEEDED", "unaffected clients received nothing");
}

#[tokio::test]
async fn an_added_client_authenticates_after_sighup() {
    let [alice, bob] = alice_and_bob();
    let mut gateway = Gateway::start(&format!("clients: [{bob}]")).await;
    assert_eq!(gateway.execute("jg_alice").await, "UNAUTHENTICATED");
    gateway.reload(&format!("clients: [{alice}, {bob}]"), "clients=2 issuers=0 ended=0").await;
    assert_eq!(gateway.execute("jg_alice").await, "RUNNING");
}

#[tokio::test]
async fn an_invalid_file_is_rejected_with_all_its_errors() {
    let issuer = Issuer::start().await;
    let (mut gateway, jwt) = with_clients(&issuer).await;
    let mut stream = gateway.watch(WebSocket, "jg_bob").await;
    let bad = format!("{jwt}\nclients: [{{ name: eve, sources: [nowhere] }}]\nserver: {{ listen: x }}");
    gateway.reload(&bad, "configuration not reloaded").await;
    let output = gateway.process.output();
    for path in ["clients[0].key_sha256", "clients[0].sources[0]", "server.listen"] {
        assert!(output.contains(path), "{path} is not in {output}");
    }
    assert_eq!(gateway.execute("jg_bob").await, "RUNNING");
    gateway.complete_job();
    assert_eq!(stream.short().await, "ENDED SUCCEEDED", "the stream received nothing else");
}

#[tokio::test]
async fn an_option_that_needs_a_restart_does_not_block_a_reload() {
    let issuer = Issuer::start().await;
    let (mut gateway, _) = with_clients(&issuer).await;
    let [_, bob] = alice_and_bob();
    let more = format!("clients: [{bob}]\ngraphql: {{ max_cost: 5 }}\ncache: {{ fresh_for: 1s }}");
    gateway.reload(&more, "clients=1 issuers=0").await;
    gateway.process.find("the option", |line| line.contains("graphql.max_cost").then_some(())).await;
    assert_eq!(gateway.execute("jg_alice").await, "UNAUTHENTICATED");
}

#[tokio::test]
async fn no_client_credential_is_logged_across_reloads() {
    let issuer = Issuer::start().await;
    let (mut gateway, jwt) = with_clients(&issuer).await;
    let token = token(&issuer, 600);
    let _streams = [gateway.watch(WebSocket, "jg_alice").await, gateway.watch(Sse, &token).await];
    let [_, bob] = alice_and_bob();
    gateway.reload(&format!("{jwt}\nclients: [{bob}]"), "clients=1 issuers=1 ended=1").await;
    gateway.reload(&format!("{jwt}\nclients: [{{ name: eve }}]"), "configuration not reloaded").await;
    gateway.reload(&format!("clients: [{bob}]"), "clients=1 issuers=0 ended=1").await;
    for credential in ["jg_alice", "jg_bob", &token] {
        gateway.execute(credential).await;
    }
    gateway.process.signal("TERM").await;
    let (status, output) = gateway.process.ended().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(!output.contains("jg_") && !output.contains(&token), "{output}");
}

#[tokio::test]
async fn a_file_truncated_before_its_clients_revokes_none() {
    let [alice, bob] = alice_and_bob();
    let mut gateway = Gateway::start(&format!("clients: [{alice}, {bob}]")).await;
    // as by an editor that is still writing
    gateway.reload("", "removes all clients and issuers").await;
    assert_eq!(gateway.execute("jg_alice").await, "RUNNING");
    assert_eq!(wire::get(gateway.public, "/v1/jobs/mind/a").await.status, 401, "a credential is required");
}

#[tokio::test]
async fn a_revoked_client_gets_no_answer_of_its_pending_waits() {
    let [alice, bob] = alice_and_bob();
    let mut gateway = Gateway::start(&format!("clients: [{alice}, {bob}]")).await;
    let query = format!("query($ref: JobRef!) {{ job: jobAwait(ref: $ref, timeout: \"25s\") {ANY} }}");
    let body = json!({ "query": query, "variables": { "ref": external("mind", "a") } }).to_string();
    let key = ("authorization", "Bearer jg_alice");
    let before = gateway.lookups().await;
    let mut waits = Vec::new();
    for request in [
        wire::request("POST", "/graphql", &[key, ("content-type", "application/json")], &body),
        wire::request("GET", "/v1/jobs/mind/a", &[key, ("prefer", "wait=25")], ""),
    ] {
        let mut socket = TcpStream::connect(gateway.public).await.unwrap();
        socket.write_all(&request).await.unwrap();
        waits.push(socket);
    }
    // both are authenticated and wait before the key is revoked
    let waiting = async {
        while gateway.lookups().await < before + 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    let mut watcher = gateway.watch(Sse, "jg_alice").await;
    gateway.reload(&format!("clients: [{bob}]"), "clients=1").await;
    assert_eq!(watcher.receive().await, ended(Sse), "the key is revoked");
    gateway.complete_job();
    for mut socket in waits {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("NOT_FOUND") && !answer.contains("SUCCEEDED"), "{answer}");
    }
}
