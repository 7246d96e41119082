//! Each section that can change without a restart: the change applies to later requests, and streams stay open.

use futures_util::future::join_all;
use jobgate_simulator::SimUpstream;

use super::{BUDGET, Gateway, OTHER, assert_uninterrupted, client, mind, more, open_streams};
use crate::redis_shared_store::until;
use crate::support::server::{TOKEN, describe, external};
use crate::support::streams::{Sse, StreamEvent, Watcher, WebSocket};
use crate::support::wire;

const BUDGET_CHANGED: &str =
    "sources.mind.budget.concurrency, sources.mind.budget.per_hour, sources.mind.budget.per_second";
const BOTH_CREDENTIALS: &str = "sources.mind.credential.bearer.env, sources.more.credential.bearer.env";

/// A gateway with the client `alice`, and the texts that its file is made of.
struct Started {
    gateway: Gateway,
    /// The source `mind` as it is at first.
    source: String,
    /// The source `more`, which the file does not contain yet.
    more: String,
    /// The section of the client `alice`.
    alice: String,
    /// The section of the clients `alice`, and `bob`, who may read both sources.
    both: String,
}

async fn started() -> Started {
    let alice = client("alice", "[mind]");
    let both = format!("clients: [{alice}, {}]", client("bob", "[mind, more]"));
    let alice = format!("clients: [{alice}]");
    let gateway = Gateway::start(&alice).await;
    let source = mind(&gateway.url(0), "{ env: MIND_TOKEN }", BUDGET);
    let more = more(&gateway);
    Started { gateway, source, more, alice, both }
}

/// The same with `bob` and the source `more` in the file.
async fn with_both() -> Started {
    let mut started = started().await;
    let Started { gateway, source, more, both, .. } = &mut started;
    gateway.change(&[source, more], both, "clients, sources.more").await;
    started
}

/// How many calls the second upstream has received.
fn calls(gateway: &Gateway) -> usize {
    gateway.upstreams[1].handle().record_of(SimUpstream::MindBridge).len()
}

fn low(url: &str) -> String {
    mind(url, "{ env: MIND_TOKEN }", "per_second: 9000, per_hour: 500, concurrency: 50")
}

#[tokio::test]
async fn a_changed_budget_keeps_what_is_used() {
    let Started { mut gateway, alice, .. } = started().await;
    gateway.execute("alice", "mind", "b", None).await;
    let (per_hour, used) = gateway.used().await;
    assert!(per_hour == 1_000_000 && used > 0, "{used} of {per_hour}");
    gateway.change(&[&low(&gateway.url(0))], &alice, BUDGET_CHANGED).await;
    let (per_hour, after) = gateway.used().await;
    assert!(per_hour == 500 && after >= used, "{after} of {per_hour}, before {used}");
}

#[tokio::test]
async fn an_added_source_is_readable_by_its_clients_alone() {
    let Started { mut gateway, source, more, both, .. } = started().await;
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "UNAUTHENTICATED");
    gateway.change(&[&source, &more], &both, "clients, sources.more").await;
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "RUNNING");
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "NOT_FOUND after 5s");
}

#[tokio::test]
async fn a_grant_applies_until_a_reload_revokes_it() {
    let Started { mut gateway, source, more, both, .. } = with_both().await;
    let wide = both.replacen("[mind]", "[mind, more]", 1);
    gateway.change(&[&source, &more], &wide, "clients").await;
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "RUNNING");
    gateway.change(&[&source, &more], &both, "clients").await;
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "NOT_FOUND after 5s");
}

#[tokio::test]
async fn later_calls_are_sent_to_a_changed_base_url() {
    let Started { mut gateway, source, alice, .. } = started().await;
    let moved = source.replace(&gateway.url(0), &gateway.url(1));
    gateway.change(&[&moved], &alice, "sources.mind.base_url").await;
    let before = calls(&gateway);
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
    assert!(calls(&gateway) > before);
}

/// The old credential stays valid until no call uses it: streams poll all the time.
#[tokio::test]
async fn later_calls_use_a_changed_credential() {
    let Started { mut gateway, source, alice, .. } = started().await;
    let _streams = open_streams(&gateway, "jg_alice").await;
    let upstream = gateway.upstreams[0].handle();
    upstream.also_accept(SimUpstream::MindBridge, OTHER);
    let keyed = source.replace("MIND_TOKEN", "OTHER_TOKEN");
    gateway.change(&[&keyed], &alice, "sources.mind.credential.bearer.env").await;
    let last = || upstream.record_of(SimUpstream::MindBridge).last().and_then(|recorded| recorded.credential);
    until("the other credential is used", || async {
        assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
        (last() == Some(1)).then_some(())
    })
    .await;
    upstream.revoke(SimUpstream::MindBridge, 0);
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
}

#[tokio::test]
async fn a_request_rate_applies_until_a_reload_removes_it() {
    let Started { mut gateway, source, alice, .. } = started().await;
    let slow = format!("{alice}\nlimits: {{ requests_per_second: 1, burst: 1 }}");
    let changed = "limits.burst, limits.requests_per_second";
    gateway.change(&[&source], &slow, changed).await;
    let answers = join_all((0..20).map(|_| gateway.execute("alice", "mind", "b", None))).await;
    assert!(answers.iter().any(|answer| answer == "TOO_MANY_REQUESTS"), "{answers:?}");
    gateway.change(&[&source], &alice, changed).await;
    assert_eq!(gateway.execute("alice", "mind", "b", None).await, "RUNNING");
}

#[tokio::test]
async fn a_longer_fresh_for_applies_to_cached_answers() {
    let Started { mut gateway, source, more, both, .. } = with_both().await;
    gateway
        .change(&[&source, &more], &format!("{both}\ncache: {{ fresh_for: 1h }}"), "cache.fresh_for")
        .await;
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "RUNNING");
    let before = calls(&gateway);
    for _ in 0..5 {
        assert_eq!(gateway.execute("bob", "more", "b", None).await, "RUNNING");
    }
    let requests = gateway.upstreams[1].handle().record_of(SimUpstream::MindBridge);
    let of_b =
        requests.iter().skip(before).filter(|recorded| format!("{recorded:?}").contains("\"b\"")).count();
    assert_eq!(of_b, 0);
}

#[tokio::test]
async fn a_lower_stream_limit_rejects_only_new_streams() {
    let Started { mut gateway, source, alice, .. } = started().await;
    let streams = open_streams(&gateway, "jg_alice").await;
    let rest = format!("{alice}\nstreams: {{ max_streams_per_client: 1 }}");
    gateway.change(&[&source], &rest, "streams.max_streams_per_client").await;
    assert_eq!(Watcher::refused(gateway.public, "jg_alice").await, 429);
    assert_uninterrupted(&gateway, 0, streams).await;
}

/// The configuration with an allowed origin, and with an option that needs a restart.
fn pages(rest: &str) -> String {
    format!(
        "{rest}\nserver: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, allowed_origins: ['https://app.example'], trusted_proxies: [10.0.0.0/8] }}\ngraphql: {{ max_cost: 7 }}"
    )
}

const PAGES_CHANGED: &str = "server.allowed_origins, server.trusted_proxies";

#[tokio::test]
async fn a_page_of_an_added_origin_is_allowed() {
    let Started { mut gateway, source, alice, .. } = started().await;
    let origin = [("origin", "https://app.example"), ("authorization", "Bearer jg_alice")];
    let request = wire::request("GET", "/v1/jobs/mind/b", &origin, "");
    assert_eq!(wire::exchange(gateway.public, &request).await.status, 403);
    gateway.change(&[&source], &pages(&alice), PAGES_CHANGED).await;
    assert_eq!(wire::exchange(gateway.public, &request).await.status, 200);
}

#[tokio::test]
async fn a_changed_option_that_needs_a_restart_is_logged() {
    let Started { mut gateway, source, alice, .. } = started().await;
    gateway.change(&[&source], &pages(&alice), PAGES_CHANGED).await;
    let restart =
        |line: &str| (line.contains("need a restart") && line.contains("graphql.max_cost")).then_some(());
    gateway.process.find("what needs a restart", restart).await;
}

#[tokio::test]
async fn a_removed_source_and_grant_end_the_streams_of_the_client() {
    let Started { mut gateway, source, both, .. } = with_both().await;
    let refs = vec![external("more", "b")];
    let mut gone = Vec::new();
    for carrier in [WebSocket, Sse] {
        let mut stream = Watcher::of_client(gateway.public, carrier, refs.clone(), "jg_bob").await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        gone.push(stream);
    }
    let last = both.replace("[mind, more]", "[mind]");
    gateway.change(&[&source], &last, "clients, sources.more").await;
    for mut stream in gone {
        // a client whose grant changed is disconnected for that; both reasons are valid, and their order is not
        // promised
        match stream.receive().await {
            StreamEvent::Update(update) => assert_eq!(describe(&update["result"]), "NOT_FOUND for good"),
            received @ (StreamEvent::Complete | StreamEvent::Over(_)) => {
                assert_ne!(received, StreamEvent::Complete);
            }
        }
    }
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "NOT_FOUND after 5s");
}

/// Changes each section once; the source `mind` is at the second upstream after that.
async fn change_every_section(started: &mut Started) {
    let Started { gateway, more, alice, both, .. } = started;
    let url = [gateway.url(0), gateway.url(1)];
    gateway.change(&[&low(&url[0])], alice, BUDGET_CHANGED).await;
    gateway.change(&[&low(&url[0]), more], both, "clients, sources.more").await;
    let wide = both.replacen("[mind]", "[mind, more]", 1);
    gateway.change(&[&low(&url[0]), more], &wide, "clients").await;
    gateway.change(&[&low(&url[0]), more], both, "clients").await;
    let moved = mind(&url[1], "{ env: MIND_TOKEN }", BUDGET);
    gateway.change(&[&moved, more], both, &format!("sources.mind.base_url, {BUDGET_CHANGED}")).await;
    gateway.upstreams[1].handle().also_accept(SimUpstream::MindBridge, OTHER);
    let (keyed, more) =
        (moved.replace("MIND_TOKEN", "OTHER_TOKEN"), more.replace("MIND_TOKEN", "OTHER_TOKEN"));
    gateway.change(&[&keyed, &more], both, BOTH_CREDENTIALS).await;
    let slow = format!("{both}\nlimits: {{ requests_per_second: 1, burst: 1 }}");
    gateway.change(&[&keyed, &more], &slow, "limits.burst, limits.requests_per_second").await;
    let fresh = format!(
        "{both}\ncache: {{ fresh_for: 1h }}\nstreams: {{ max_streams_per_client: 1 }}\npoll: {{ max_interval: 1m }}"
    );
    let changed = "cache.fresh_for, limits.burst, limits.requests_per_second, poll.max_interval, streams.max_streams_per_client";
    gateway.change(&[&keyed, &more], &fresh, changed).await;
    let changed = "cache.fresh_for, poll.max_interval, server.allowed_origins, server.trusted_proxies, streams.max_streams_per_client";
    gateway.change(&[&keyed, &more], &pages(both), changed).await;
    let last = pages(both).replace("[mind, more]", "[mind]");
    gateway.change(&[&keyed], &last, "clients, sources.more").await;
}

#[tokio::test]
async fn reloading_any_live_section_keeps_streams_open() {
    let mut started = started().await;
    let streams = open_streams(&started.gateway, "jg_alice").await;
    change_every_section(&mut started).await;
    assert_uninterrupted(&started.gateway, 1, streams).await;
}

#[tokio::test]
async fn no_secret_or_error_is_logged_by_a_valid_reload() {
    let mut started = started().await;
    let _streams = open_streams(&started.gateway, "jg_alice").await;
    change_every_section(&mut started).await;
    let output = started.gateway.process.output();
    assert!(!output.contains("ERROR") && !output.contains(OTHER) && !output.contains(TOKEN), "{output}");
}
