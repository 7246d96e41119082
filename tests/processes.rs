//! The real binary, as its users start it: exit codes, signals, and processes that communicate over TCP alone.

use jobgate::config::ClientConfig;
use jobgate::inbound::graphql::schema::sdl;
use jobgate::outbound::identity::keys;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::redis_shared_store::until;
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, Setup, describe, external};
use crate::support::wire;

const SECRETS: [(&str, &str); 2] =
    [("MIND_TOKEN", "demo-mindbridge-token"), ("METRICS_KEY", "demo-supermetrics-key")];

/// Two jobs that do not change, so that no test depends on its timing.
const SCENARIO: &str = "
mindbridge: { token: demo-mindbridge-token, jobs: [{ id: done, steps: [{ status: COMPLETE }] }] }
supermetrics: { api_key: demo-supermetrics-key, jobs: [{ id: waits, steps: [{ status: QUEUED }] }] }";

const ANY_PORT: &str = "127.0.0.1:0";

/// The simulated upstreams in their own process, and their addresses.
async fn simulate() -> (Process, String, String) {
    let scenario = Scratch::new(SCENARIO);
    let mut upstreams = Process::start(
        &["simulate", "--scenario", scenario.path(), "--mindbridge", ANY_PORT, "--supermetrics", ANY_PORT],
        &[],
    );
    let url = |path: &'static str| {
        move |line: &str| {
            let word = line
                .split([' ', ',', '"'])
                .find(|word| word.starts_with("http://") && word.ends_with(path))?;
            Some(word.to_owned())
        }
    };
    let mindbridge = upstreams.find("a MindBridge address", url("/api")).await;
    let supermetrics = upstreams.find("a Supermetrics address", url("/enterprise/v2")).await;
    (upstreams, mindbridge, supermetrics)
}

async fn serve(config: &Scratch, env: &[(&str, &str)]) -> (Process, std::net::SocketAddr) {
    let mut gateway = Process::start(&["serve", "--config", config.path()], env);
    let address = gateway.address("public").await;
    (gateway, address)
}

async fn execute(gateway: std::net::SocketAddr, key: Option<&str>) -> Vec<String> {
    let refs = [external("mind", "done"), external("metrics", "waits")];
    let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs) {ANY} }}");
    let answer = wire::post(gateway, key, &json!({ "query": query, "variables": { "refs": refs } })).await;
    answer.data()["jobs"].as_array().unwrap().iter().map(describe).collect()
}

/// Three processes that share only TCP: two upstream servers, each in its own process, and the gateway.
#[tokio::test]
async fn a_gateway_serves_jobs_of_two_upstream_processes() {
    let ((_one, mindbridge, _), (_other, _, supermetrics)) = tokio::join!(simulate(), simulate());
    let hash = ClientConfig::hex(&keys::hash("jg_key"));
    let rest = format!("clients: [{{ name: c, key_sha256: \"{hash}\", sources: [mind, metrics] }}]");
    let config = Scratch::new(&Setup { rest, ..Setup::default() }.yaml(&mindbridge, &supermetrics));
    let (_gateway, address) = serve(&config, &SECRETS).await;
    assert_eq!(execute(address, Some("jg_key")).await, ["SUCCEEDED", "QUEUED"]);
}

#[tokio::test]
async fn sigterm_and_sigint_end_a_process_with_exit_code_0() {
    let (upstreams, mindbridge, supermetrics) = simulate().await;
    let config = Scratch::new(&Setup::default().yaml(&mindbridge, &supermetrics));
    let (gateway, address) = serve(&config, &SECRETS).await;
    execute(address, None).await;
    for (process, signal) in [(gateway, "TERM"), (upstreams, "INT")] {
        process.signal(signal).await;
        let (ended, output) = process.ended().await;
        assert_eq!(ended.code(), Some(0), "{signal}: {output}");
    }
}

/// The README's promise: soon after `jobgate demo` the printed command line works as printed.
#[tokio::test]
async fn the_curl_command_printed_by_demo_returns_jobs() {
    let promise = std::time::Duration::from_mins(1);
    let kept = tokio::time::timeout(promise, async {
        let mut demo = Process::start(&["demo", "--listen", ANY_PORT, "--admin-listen", ANY_PORT], &[]);
        let line = demo.find("a curl line", |line| Some(line.trim().strip_prefix("curl ")?.to_owned())).await;
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
        let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
        let body = line.split_once("-d '").unwrap().1.trim_end_matches('\'').to_owned();
        let request =
            wire::request("POST", &format!("/{path}"), &[("content-type", "application/json")], &body);
        let jobs = wire::exchange(host.parse().unwrap(), &request).await.data()["jobs"].take();
        let types: Vec<&Value> = jobs.as_array().unwrap().iter().map(|job| &job["__typename"]).collect();
        assert_eq!(types, ["MindBridgeJob", "SupermetricsJob"]);
        demo.signal("TERM").await;
        assert_eq!(demo.ended().await.0.code(), Some(0));
    });
    assert!(kept.await.is_ok(), "no answer within {promise:?}");
}

/// The default configuration, and the processes of its upstreams.
async fn reachable() -> (Process, Scratch) {
    let (upstreams, mindbridge, supermetrics) = simulate().await;
    (upstreams, Scratch::new(&Setup::default().yaml(&mindbridge, &supermetrics)))
}

async fn check(config: &Scratch, more: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    run(&[&["check", "--config", config.path()], more].concat(), env).await
}

#[tokio::test]
async fn check_exits_with_0_for_a_valid_configuration() {
    let (_upstreams, good) = reachable().await;
    for more in [&[][..], &["--print"], &["--online"]] {
        let (code, output) = check(&good, more, &SECRETS).await;
        assert_eq!(code, Some(0), "{more:?}: {output}");
    }
}

#[tokio::test]
async fn online_check_names_the_source_that_rejects_its_credential() {
    let (_upstreams, good) = reachable().await;
    let env = [SECRETS[0], ("METRICS_KEY", "not-the-right-key")];
    let (code, output) = check(&good, &["--online"], &env).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("sources.metrics: ") && output.contains("sources.mind: reachable"), "{output}");
    assert!(!output.contains("not-the-right-key"), "{output}");
}

#[tokio::test]
async fn check_names_a_missing_environment_variable() {
    let good = Scratch::new(&Setup::default().yaml("http://127.0.0.1:1/api", "http://127.0.0.1:1"));
    let (code, output) = check(&good, &[], &SECRETS[..1]).await;
    assert_eq!((code, output.contains("METRICS_KEY")), (Some(78), true), "{output}");
}

#[tokio::test]
async fn check_rejects_an_invalid_redis_url_without_printing_it() {
    let rest = "store: { kind: redis, redis: { url: { env: REDIS_URL } } }".to_owned();
    let shared = Scratch::new(
        &Setup { rest, ..Setup::default() }.yaml("http://127.0.0.1:1/api", "http://127.0.0.1:1"),
    );
    for (url, good) in [
        ("redis://u:cAnaRy@h:1", true),
        ("http://u:cAnaRy@h:1", false),
        ("redis://a:1,redis://cAnaRy:1", false),
    ] {
        let env = [SECRETS[0], SECRETS[1], ("REDIS_URL", url)];
        let (code, output) = check(&shared, &[], &env).await;
        assert_eq!((code == Some(0), output.contains("store.redis")), (good, !good), "{output}");
        assert!(!output.contains("cAnaRy"), "{output}");
    }
}

#[tokio::test]
async fn check_names_every_error_of_a_configuration() {
    let bad = Scratch::new("server: { lisen: 127.0.0.1:1 }\nsources: { a: { upstream: other } }");
    let (code, output) = check(&bad, &[], &[]).await;
    assert_eq!(code, Some(78), "{output}");
    for fault in ["server.lisen", "sources.a.upstream", "sources.a.base_url", "sources.a.credential"] {
        assert!(output.contains(fault), "{fault} is not in: {output}");
    }
}

#[tokio::test]
async fn check_exits_with_78_for_a_missing_file() {
    assert_eq!(run(&["check", "--config", "/nowhere/at/all.yaml"], &[]).await.0, Some(78));
}

#[tokio::test]
async fn an_unknown_option_exits_with_2() {
    assert_eq!(run(&["check", "--nonsense"], &[]).await.0, Some(2));
}

#[tokio::test]
async fn schema_command_prints_the_committed_schema() {
    let (code, output) = run(&["schema"], &[]).await;
    assert_eq!((code, output.trim_end()), (Some(0), sdl().trim_end()));
}

#[tokio::test]
async fn config_schema_command_prints_a_json_schema() {
    let (code, output) = run(&["config-schema"], &[]).await;
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&output).unwrap()["properties"]["sources"].is_object());
}

/// Runs `serve` with this address of the public listener until it exits.
async fn serve_on(listen: &str) -> (Option<i32>, String) {
    let rest = format!("server: {{ listen: \"{listen}\", admin_listen: 127.0.0.1:0 }}");
    let config = Scratch::new(
        &Setup { rest, ..Setup::default() }.yaml("http://127.0.0.1:1/api", "http://127.0.0.1:1"),
    );
    run(&["serve", "--config", config.path()], &SECRETS).await
}

#[tokio::test]
async fn serve_rejects_a_public_address_without_clients() {
    let (code, output) = serve_on("0.0.0.0:0").await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("server.listen"), "{output}");
}

#[tokio::test]
async fn serve_exits_with_1_if_its_address_is_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, output) = serve_on(&taken.local_addr().unwrap().to_string()).await;
    assert_eq!((code, output.contains("server.listen")), (Some(1), true), "{output}");
}

/// An address on which nothing listens, and the socket that keeps other processes from it.
fn closed() -> (String, tokio::net::TcpSocket) {
    // bound without listening
    let unbound = tokio::net::TcpSocket::new_v4().unwrap();
    unbound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (format!("http://{}/api", unbound.local_addr().unwrap()), unbound)
}

#[tokio::test]
async fn a_missing_secret_disables_only_its_source() {
    let (_upstreams, _, supermetrics) = simulate().await;
    let (url, _bound) = closed();
    let config = Scratch::new(&Setup::default().yaml(&url, &supermetrics));
    let (mut gateway, address) = serve(&config, &SECRETS[1..]).await;
    assert_eq!(execute(address, None).await, ["UNCONFIGURED", "QUEUED"]);
    gateway.find("the missing one", |line| line.contains("MIND_TOKEN").then_some(())).await;
}

/// A source without a server is unavailable, and no request hangs.
#[tokio::test]
async fn an_unreachable_source_leaves_the_others_available() {
    let (_upstreams, _, supermetrics) = simulate().await;
    let (url, _bound) = closed();
    let config = Scratch::new(&Setup::default().yaml(&url, &supermetrics));
    let (_gateway, address) = serve(&config, &SECRETS).await;
    assert_eq!(execute(address, None).await, ["UNAVAILABLE", "QUEUED"]);
}

/// The first signal waits for requests in flight, the second does not.
#[tokio::test]
async fn a_second_signal_ends_the_process_without_draining() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api", silent.local_addr().unwrap());
    // a request in flight would take longer than any test waits
    let rest =
        "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 1h, drain_timeout: 1h }";
    let source = "status_timeout: 30m";
    let config = Scratch::new(&Setup { rest: rest.to_owned(), source, ..Setup::default() }.yaml(&url, &url));
    let (mut gateway, address) = serve(&config, &SECRETS).await;
    let query =
        r#"{"query":"{ job(ref: { external: { source: \"mind\", externalId: \"a\" } }) { __typename } }"}"#;
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = wire::request("POST", "/graphql", &[("content-type", "application/json")], query);
    caller.write_all(&request).await.unwrap();
    // accepted, and never answered: from here on there is a request to wait for
    let (_held, _) = silent.accept().await.unwrap();
    gateway.signal("TERM").await;
    gateway.find("the beginning of the end", |line| line.contains("shutting down").then_some(())).await;
    gateway.signal("TERM").await;
    let (status, output) = gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("second signal"), "{output}");
}

/// A gateway, and the address of its admin listener.
async fn with_admin() -> (Process, Process, std::net::SocketAddr) {
    let (upstreams, config) = reachable().await;
    let (mut gateway, _) = serve(&config, &SECRETS).await;
    let admin = gateway.address("admin").await;
    (upstreams, gateway, admin)
}

/// Waits until the health check of an image ends with this code and contains this text.
async fn health_reports(admin: std::net::SocketAddr, path: &str, expected: i32, words: &str) {
    // its timeout is short, and a busy machine may need more
    until("the health check", || async {
        let (code, output) = run(&["health", &format!("http://{admin}/{path}")], &[]).await;
        (code == Some(expected) && output.contains(words)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_exit_code_reflects_readiness() {
    let (_upstreams, gateway, admin) = with_admin().await;
    health_reports(admin, "readyz", 0, "").await;
    gateway.signal("TERM").await;
    gateway.ended().await;
    let (code, output) = run(&["health", &format!("http://{admin}/readyz")], &[]).await;
    assert_eq!((code, output.contains("no response from ")), (Some(1), true), "{output}");
}

#[tokio::test]
async fn health_prints_the_status_of_a_failed_response() {
    let (_upstreams, _gateway, admin) = with_admin().await;
    health_reports(admin, "nothing", 1, "404").await;
}
