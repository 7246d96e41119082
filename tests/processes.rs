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
    let ((one, mindbridge, _), (other, _, supermetrics)) = tokio::join!(simulate(), simulate());
    let hash = ClientConfig::hex(&keys::hash("jg_key"));
    let rest = format!("clients: [{{ name: c, key_sha256: \"{hash}\", sources: [mind, metrics] }}]");
    let config = Scratch::new(&Setup { rest, ..Setup::default() }.yaml(&mindbridge, &supermetrics));
    let (gateway, address) = serve(&config, &SECRETS).await;
    assert_eq!(execute(address, Some("jg_key")).await, ["SUCCEEDED", "QUEUED"]);

    gateway.signal("TERM").await;
    let (ended, output) = gateway.ended().await;
    assert_eq!(ended.code(), Some(0), "{output}");
    for upstream in [one, other] {
        upstream.signal("INT").await;
        assert_eq!(upstream.ended().await.0.code(), Some(0));
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

#[tokio::test]
async fn check_reports_an_invalid_configuration_by_exit_code() {
    let (_upstreams, mindbridge, supermetrics) = simulate().await;
    let good = Scratch::new(&Setup::default().yaml(&mindbridge, &supermetrics));
    let check = async |more: &[&str], env: &[(&str, &str)]| {
        run(&[&["check", "--config", good.path()], more].concat(), env).await
    };
    assert_eq!(check(&[], &SECRETS).await.0, Some(0));
    assert_eq!(check(&["--print"], &SECRETS).await.0, Some(0));
    let (code, output) = check(&["--online"], &SECRETS).await;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = check(&["--online"], &[SECRETS[0], ("METRICS_KEY", "not-the-right-key")]).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("sources.metrics: ") && output.contains("sources.mind: reachable"), "{output}");
    assert!(!output.contains("not-the-right-key"), "{output}");
    let (code, output) = check(&[], &SECRETS[..1]).await;
    assert_eq!((code, output.contains("METRICS_KEY")), (Some(78), true), "{output}");

    let rest = "store: { kind: redis, redis: { url: { env: REDIS_URL } } }".to_owned();
    let shared = Scratch::new(&Setup { rest, ..Setup::default() }.yaml(&mindbridge, &supermetrics));
    for (url, good) in [
        ("redis://u:cAnaRy@h:1", true),
        ("http://u:cAnaRy@h:1", false),
        ("redis://a:1,redis://cAnaRy:1", false),
    ] {
        let env = [SECRETS[0], SECRETS[1], ("REDIS_URL", url)];
        let (code, output) = run(&["check", "--config", shared.path()], &env).await;
        assert_eq!((code == Some(0), output.contains("store.redis")), (good, !good), "{output}");
        assert!(!output.contains("cAnaRy"), "{output}");
    }

    let bad = Scratch::new("server: { lisen: 127.0.0.1:1 }\nsources: { a: { upstream: other } }");
    let (code, output) = run(&["check", "--config", bad.path()], &[]).await;
    assert_eq!(code, Some(78), "{output}");
    for fault in ["server.lisen", "sources.a.upstream", "sources.a.base_url", "sources.a.credential"] {
        assert!(output.contains(fault), "{fault} is not in: {output}");
    }
    assert_eq!(run(&["check", "--config", "/nowhere/at/all.yaml"], &[]).await.0, Some(78));
    assert_eq!(run(&["check", "--nonsense"], &[]).await.0, Some(2));
}

#[tokio::test]
async fn schema_command_prints_the_committed_schema() {
    let (code, output) = run(&["schema"], &[]).await;
    assert_eq!((code, output.trim_end()), (Some(0), sdl().trim_end()));
    let (code, output) = run(&["config-schema"], &[]).await;
    assert_eq!(code, Some(0));
    assert!(serde_json::from_str::<Value>(&output).unwrap()["properties"]["sources"].is_object());
}

#[tokio::test]
async fn serve_rejects_a_public_address_without_clients() {
    let rest = "server: { listen: 0.0.0.0:0, admin_listen: 127.0.0.1:0 }".to_owned();
    let open = Scratch::new(
        &Setup { rest, ..Setup::default() }.yaml("http://127.0.0.1:1/api", "http://127.0.0.1:1"),
    );
    let (code, output) = run(&["serve", "--config", open.path()], &SECRETS).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("server.listen"), "{output}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rest =
        format!("server: {{ listen: \"{}\", admin_listen: 127.0.0.1:0 }}", taken.local_addr().unwrap());
    let busy = Scratch::new(
        &Setup { rest, ..Setup::default() }.yaml("http://127.0.0.1:1/api", "http://127.0.0.1:1"),
    );
    let (code, output) = run(&["serve", "--config", busy.path()], &SECRETS).await;
    assert_eq!((code, output.contains("server.listen")), (Some(1), true), "{output}");
}

/// A failed source leaves the others available; and a source without a server is unavailable, not a hang.
#[tokio::test]
async fn a_missing_secret_disables_only_its_source() {
    let (_upstreams, _, supermetrics) = simulate().await;
    // bound without listening: no other process gets the port meanwhile
    let unbound = tokio::net::TcpSocket::new_v4().unwrap();
    unbound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = format!("http://{}/api", unbound.local_addr().unwrap());
    let config = Scratch::new(&Setup::default().yaml(&closed, &supermetrics));
    let (mut gateway, address) = serve(&config, &SECRETS[1..]).await;
    assert_eq!(execute(address, None).await, ["UNCONFIGURED", "QUEUED"]);
    gateway.find("the missing one", |line| line.contains("MIND_TOKEN").then_some(())).await;
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

/// The health check of an image runs this command.
#[tokio::test]
async fn health_exit_code_reflects_readiness() {
    let (_upstreams, mindbridge, supermetrics) = simulate().await;
    let config = Scratch::new(&Setup::default().yaml(&mindbridge, &supermetrics));
    let (mut gateway, _) = serve(&config, &SECRETS).await;
    let admin = gateway.address("admin").await;
    // its timeout is short, and a busy machine may need more
    let health_reports = async |path: &str, expected: i32, words: &str| {
        let (code, output) = run(&["health", &format!("http://{admin}/{path}")], &[]).await;
        (code == Some(expected) && output.contains(words)).then_some(())
    };
    until("it is ready", || health_reports("readyz", 0, "")).await;
    until("it prints the response", || health_reports("nothing", 1, "404")).await;
    gateway.signal("TERM").await;
    gateway.ended().await;
    let (code, output) = run(&["health", &format!("http://{admin}/readyz")], &[]).await;
    assert_eq!((code, output.contains("no response from ")), (Some(1), true), "{output}");
}
