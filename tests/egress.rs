//! Outbound connections: through proxies, to upstreams with certificates of private authorities, with a client
//! certificate. DNS does not resolve the upstream's name, so every request that arrives went through the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use jobgate::config::{Config, Environment};
use jobgate::server::build::Gateway;
use jobgate::server::reload::{ReloadTrigger, Reloaded};
use jobgate_simulator::{Addresses, MindBridgeJob, Scenario, SimUpstream, Simulator};
use serde_json::Value;
use url::Url;

use crate::support::egress::{Authority, HOST, Issued, Proxy, TlsEnd};
use crate::support::process::{Process, run};
use crate::support::scratch::{Scratch, ScratchFolder};
use crate::support::server::{Rig, TOKEN};
use crate::support::streams::LIMIT;
use crate::support::wire;

const USER: &str = "gateway:p4ss-w0rd-0f-the-pr0xy";

/// An upstream with TLS, reached through a proxy.
struct World {
    simulator: Simulator,
    authority: Authority,
    tls: TlsEnd,
    proxy: Proxy,
    ca_file: Scratch,
    credential: Scratch,
}

impl World {
    async fn new(wanted: Option<&str>) -> Self {
        let authority = Authority::new();
        let shown = authority.server(HOST);
        Self::with_credential(authority, &shown, None, wanted).await
    }

    async fn with_credential(
        authority: Authority,
        shown: &Issued,
        clients: Option<&Authority>,
        wanted: Option<&str>,
    ) -> Self {
        let mut scenario = Scenario::default();
        scenario.mindbridge.jobs = vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])];
        let simulator = Simulator::start(scenario, Addresses::ephemeral()).await.unwrap();
        let behind = address(&simulator);
        let tls = TlsEnd::start(shown, clients, behind).await;
        let proxy = Proxy::start(wanted, tls.address, behind).await;
        let (ca_file, credential) = (Scratch::new(&authority.pem()), Scratch::new(USER));
        Self { simulator, authority, tls, proxy, ca_file, credential }
    }

    /// The base URL of the upstream, with the name that only the proxy resolves.
    fn base_url(&self, scheme: &str) -> String {
        let mut url = Url::parse(&self.simulator.mindbridge_url()).unwrap();
        url.set_host(Some(HOST)).unwrap();
        url.set_port(None).unwrap();
        url.to_string().replacen("http", scheme, 1)
    }

    fn yaml(&self, scheme: &str, options: &str) -> String {
        let options = options
            .replace("PROXY", &self.proxy.url())
            .replace("USER", &format!("{{ file: '{}' }}", self.credential.path()))
            .replace("CA", self.ca_file.path());
        format!(
            "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\nstore: {{ kind: memory }}\n\
             credentials: {{ reload_interval: 100ms }}\nsources:\n  mind: {{ upstream: mindbridge, base_url: '{}', \
             credential: {{ bearer: {{ env: MIND_TOKEN }} }}, allow_plaintext: true, {options} }}\n",
            self.base_url(scheme)
        )
    }

    /// The output of `check --online` for the source.
    async fn check(&self, scheme: &str, options: &str, env: &[(&str, &str)]) -> String {
        let config = Scratch::new(&self.yaml(scheme, options));
        let env = [&[("MIND_TOKEN", TOKEN), ("RES_OPTIONS", "timeout:1 attempts:1")], env].concat();
        let (_, output) = run(&["check", "--config", config.path(), "--online"], &env).await;
        for secret in [TOKEN, "p4ss-w0rd"] {
            assert!(!output.contains(secret), "{output}");
        }
        output.lines().next().unwrap_or_default().to_owned()
    }

    fn calls(&self) -> usize {
        self.simulator.handle().record_of(SimUpstream::MindBridge).len()
    }

    async fn gateway(self, options: &str) -> (Rig, Self) {
        let env: Environment = [("MIND_TOKEN", TOKEN)].into_iter().collect();
        let config = Config::from_yaml(&self.yaml("https", options), &env).unwrap();
        let gateway = Gateway::build(&config, &env).await.unwrap();
        let (public, admin) = (gateway.public_addr(), gateway.admin_addr());
        let simulator = Simulator::start(Scenario::default(), Addresses::ephemeral()).await.unwrap();
        let rig = Rig { upstreams: simulator.handle(), simulator, public, admin, serving: gateway.serve() };
        (rig, self)
    }
}

fn address(simulator: &Simulator) -> SocketAddr {
    let url = Url::parse(&simulator.mindbridge_url()).unwrap();
    url.socket_addrs(|| None).unwrap()[0]
}

const ANSWERS: &str = "sources.mind: reachable, credential accepted";

#[tokio::test]
async fn https_calls_use_a_connect_tunnel_through_the_proxy() {
    let world = World::new(Some(USER)).await;
    let options = "proxy: 'PROXY', proxy_credential: USER, ca_file: 'CA'";
    assert_eq!(world.check("https", options, &[]).await, ANSWERS);
    assert_eq!(world.calls(), 1);
    let passed = world.proxy.passed();
    assert_eq!(passed.len(), 1, "{passed:?}");
    assert_eq!(passed[0].line, format!("CONNECT {HOST}:443"));
    assert_eq!(passed[0].credential.as_deref(), Some(USER));
    assert!(!passed[0].head.contains(TOKEN), "the proxy never sees the upstream's credential");
    let request = &world.simulator.handle().record()[0];
    assert_eq!(request.violation, None, "{request:?}");
}

#[tokio::test]
async fn http_calls_use_the_proxy_in_absolute_form() {
    let world = World::new(Some(USER)).await;
    assert_eq!(world.check("http", "proxy: 'PROXY', proxy_credential: USER", &[]).await, ANSWERS);
    assert_eq!(world.calls(), 1);
    let passed = world.proxy.passed();
    assert_eq!(passed.len(), 1, "{passed:?}");
    assert!(passed[0].line.contains(&format!(" http://{HOST}/")), "{passed:?}");
    assert_eq!(passed[0].credential.as_deref(), Some(USER));
}

#[tokio::test]
async fn proxy_environment_variables_apply_when_proxy_is_unset() {
    let world = World::new(Some(USER)).await;
    let named = world.proxy.url().replace("http://", &format!("http://{USER}@"));
    let named = named.as_str();
    let good: [(&str, &[(&str, &str)]); 4] = [
        ("https", &[("HTTPS_PROXY", named), ("HTTP_PROXY", "http://127.0.0.1:1")]),
        ("https", &[("https_proxy", named), ("NO_PROXY", "other.example")]),
        ("http", &[("HTTP_PROXY", named), ("HTTPS_PROXY", "http://127.0.0.1:1")]),
        ("http", &[("http_proxy", named)]),
    ];
    for (scheme, env) in good {
        let ca_file = if scheme == "https" { "ca_file: 'CA'" } else { "" };
        assert_eq!(world.check(scheme, ca_file, env).await, ANSWERS, "{env:?}");
    }
    assert_eq!(world.proxy.passed().len(), 4);
}

#[tokio::test]
async fn no_proxy_bypasses_the_proxy_of_the_environment() {
    let world = World::new(Some(USER)).await;
    let named = world.proxy.url().replace("http://", &format!("http://{USER}@"));
    for (options, env) in [
        ("ca_file: 'CA'", [("HTTPS_PROXY", named.as_str()), ("NO_PROXY", HOST)]),
        ("ca_file: 'CA'", [("HTTPS_PROXY", &named), ("no_proxy", ".example")]),
        ("ca_file: 'CA', proxy: none", [("HTTPS_PROXY", &named), ("NO_PROXY", "")]),
    ] {
        let output = world.check("https", options, &env).await;
        assert!(output.contains("could not connect"), "{output}");
        assert_eq!(world.proxy.passed().len(), 0, "{env:?}");
    }
}

#[tokio::test]
async fn check_names_an_invalid_proxy_variable() {
    let world = World::new(Some(USER)).await;
    let output = world.check("https", "ca_file: 'CA'", &[("HTTPS_PROXY", "socks5://p4ss-w0rd@h:1")]).await;
    assert!(output.starts_with("HTTPS_PROXY: must be the URL of a proxy"), "{output}");
}

#[tokio::test]
async fn check_reports_a_proxy_that_rejects_the_credential() {
    let world = World::new(Some("somebody:else")).await;
    let options = "proxy: 'PROXY', proxy_credential: USER";
    for (scheme, options) in [("https", format!("{options}, ca_file: 'CA'")), ("http", options.to_owned())] {
        let output = world.check(scheme, &options, &[]).await;
        assert!(output.contains("the proxy refuses the credential (407)"), "{output}");
    }
    assert_eq!(world.calls(), 0, "no call bypasses the proxy");
}

#[tokio::test]
async fn check_reports_a_proxy_that_is_unreachable() {
    let world = World::new(None).await;
    let output = world.check("https", "proxy: 'http://127.0.0.1:1'", &[]).await;
    assert!(output.contains("the proxy cannot be reached"), "{output}");
    let output = world.check("http", "proxy: 'http://127.0.0.1:1'", &[]).await;
    assert!(output.contains("could not connect"), "{output}");
    assert_eq!(world.calls(), 0, "no call bypasses the proxy");
}

#[tokio::test]
async fn the_upstream_certificate_is_verified_through_a_proxy() {
    let authority = Authority::new();
    let stranger = Scratch::new(&Authority::new().pem());
    let good = authority.server(HOST);
    let other_name = authority.server("other.example");
    let expired = authority.expired(HOST);
    let world = World::with_credential(authority, &good, None, None).await;
    for (shown, ca_file, reason) in [
        (&good, "", "UnknownIssuer"),
        (&good, &format!(", ca_file: '{}'", stranger.path()), "UnknownIssuer"),
        (&other_name, ", ca_file: 'CA'", "not valid for name"),
        (&expired, ", ca_file: 'CA'", "certificate expired"),
    ] {
        world.tls.change(shown, None);
        let output = world.check("https", &format!("proxy: 'PROXY'{ca_file}"), &[]).await;
        assert!(output.contains(reason), "{output} instead of {reason}");
    }
    assert_eq!(world.calls(), 0);
    world.tls.change(&good, None);
    assert_eq!(world.check("https", "proxy: 'PROXY', ca_file: 'CA'", &[]).await, ANSWERS);
}

#[tokio::test]
async fn a_client_certificate_is_presented_where_one_is_required() {
    let authority = Authority::new();
    let clients = Authority::new();
    let (shown, good, bad) = (authority.server(HOST), clients.client(), Authority::new().client());
    let world = World::with_credential(authority, &shown, Some(&clients), None).await;
    // the alert is read, or is lost with the connection when it arrives before the request is sent
    let dropped = "if it requires a client certificate, check client_cert and client_key";
    let refuses = |output: &str, alert: &str| output.contains(alert) || output.contains(dropped);
    let output = world.check("https", "proxy: 'PROXY', ca_file: 'CA'", &[]).await;
    assert!(refuses(&output, "requires a client certificate: set client_cert and client_key"), "{output}");
    for (issued, is_taken) in [(&bad, false), (&good, true)] {
        let (cert, key) = (Scratch::new(&issued.cert), Scratch::new(&issued.key));
        let options = format!(
            "proxy: 'PROXY', ca_file: 'CA', client_cert: '{}', client_key: '{}'",
            cert.path(),
            key.path()
        );
        let output = world.check("https", &options, &[]).await;
        assert_eq!(output.contains(ANSWERS), is_taken, "{output}");
        assert!(is_taken || refuses(&output, "UnknownCA"), "{output}");
    }
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn check_reports_an_unusable_file_with_its_option() {
    let world = World::new(None).await;
    let issued = world.authority.client();
    let other = world.authority.client();
    let [cert, key, other_key] = [&issued.cert, &issued.key, &other.key].map(|text| Scratch::new(text));
    let junk = Scratch::new("p4ss-w0rd, and no PEM");
    let folder = ScratchFolder::new();
    let pair = |cert: &str, key: &str| format!("client_cert: '{cert}', client_key: '{key}'");
    for (options, option, path, reason) in [
        ("ca_file: /no/such/ca.crt".to_owned(), "ca_file", "/no/such/ca.crt", "cannot be read"),
        (format!("ca_file: '{}'", junk.path()), "ca_file", junk.path(), "holds no certificate"),
        (format!("ca_file: '{}'", folder.path().display()), "ca_file", "", "is not a regular file"),
        (pair(junk.path(), key.path()), "client_cert", junk.path(), "holds no certificate"),
        (pair(cert.path(), junk.path()), "client_key", junk.path(), "holds no private key"),
        (
            pair(cert.path(), other_key.path()),
            "client_key",
            other_key.path(),
            "is not the key of client_cert",
        ),
        (pair(cert.path(), "/no/such/key"), "client_key", "/no/such/key", "cannot be read"),
        (
            format!("proxy: 'PROXY', proxy_credential: {{ file: '{}' }}", junk.path()),
            "proxy_credential",
            junk.path(),
            "must hold user:password",
        ),
        (
            "proxy: 'PROXY', proxy_credential: { env: NO_SUCH }".to_owned(),
            "proxy_credential",
            "NO_SUCH",
            "is not set",
        ),
    ] {
        let output = world.check("https", &options, &[]).await;
        let named = format!("sources.mind.{option}: ");
        assert!(
            output.starts_with(&named) && output.contains(path) && output.contains(reason),
            "{options}: {output}"
        );
    }
}

/// A source whose egress option has an invalid file, so that no call can be made.
struct Unusable {
    rig: Rig,
    option: &'static str,
    file: Scratch,
    /// The valid content of the file.
    valid: String,
    _world: World,
    _key: Scratch,
}

impl Unusable {
    async fn each() -> Vec<Self> {
        let client = Authority::new().client();
        let mut each = Vec::new();
        for option in ["ca_file", "client_cert", "proxy_credential"] {
            let file = Scratch::new("junk");
            let world = World::new(None).await;
            let key = Scratch::new(&client.key);
            let options = match option {
                "ca_file" => format!("proxy: 'PROXY', ca_file: '{}'", file.path()),
                "client_cert" => format!(
                    "proxy: 'PROXY', ca_file: 'CA', client_cert: '{}', client_key: '{}'",
                    file.path(),
                    key.path()
                ),
                _ => {
                    format!("proxy: 'PROXY', ca_file: 'CA', proxy_credential: {{ file: '{}' }}", file.path())
                }
            };
            let valid = match option {
                "ca_file" => world.authority.pem(),
                "client_cert" => client.cert.clone(),
                _ => USER.to_owned(),
            };
            let (rig, world) = world.gateway(&options).await;
            each.push(Self { rig, option, file, valid, _world: world, _key: key });
        }
        each
    }

    async fn source(&self) -> Value {
        let query = "{ sources { health lastError { kind message } } }";
        self.rig.execute(query, Value::Null).await.data()["sources"][0].take()
    }
}

/// No call can be made, so the source is unavailable before the first call.
#[tokio::test]
async fn a_source_without_usable_egress_is_unavailable() {
    for unusable in Unusable::each().await {
        let option = unusable.option;
        for answered in [None, Some("UNAVAILABLE")] {
            if let Some(expected) = answered {
                assert_eq!(unusable.rig.lookup("mind", "a").await, expected, "{option}");
            }
            let source = unusable.source().await;
            assert_eq!(source["health"], "UNAVAILABLE", "{option}");
            assert_eq!(source["lastError"]["kind"], "UNSENDABLE", "{option}");
            let message = source["lastError"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(option) && message.contains(unusable.file.path()), "{message}");
        }
    }
}

#[tokio::test]
async fn metrics_report_a_source_without_usable_egress() {
    for unusable in Unusable::each().await {
        let option = unusable.option;
        unusable.rig.lookup("mind", "a").await;
        let metrics = wire::get(unusable.rig.admin, "/metrics").await.body;
        let alert = r#"jobgate_source_health{source="mind",health="unavailable"} 1.0"#;
        assert!(metrics.contains(alert), "{option}: the condition of JobgateSourceUnavailable");
        let label = r#"jobgate_upstream_calls_total{source="mind",outcome="egress_error"}"#;
        assert!(metrics.contains(label), "{option}: {metrics}");
    }
}

#[tokio::test]
async fn a_source_is_healthy_once_its_egress_files_are_valid() {
    for unusable in Unusable::each().await {
        unusable.rig.lookup("mind", "a").await;
        std::fs::write(unusable.file.path(), &unusable.valid).unwrap();
        again(&unusable.rig, "RUNNING").await;
        assert_eq!(unusable.source().await["health"], "HEALTHY", "{}", unusable.option);
    }
}

#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let (old, old_clients) = (Authority::new(), Authority::new());
    let (new, new_clients) = (Authority::new(), Authority::new());
    let (shown, first, second) = (old.server(HOST), old_clients.client(), new_clients.client());
    let world = World::with_credential(old, &shown, Some(&old_clients), Some(USER)).await;
    let (cert, key) = (Scratch::new(&first.cert), Scratch::new(&first.key));
    let options = format!(
        "proxy: 'PROXY', proxy_credential: USER, ca_file: 'CA', client_cert: '{}', client_key: '{}'",
        cert.path(),
        key.path()
    );
    let (rig, world) = world.gateway(&options).await;
    assert_eq!(rig.lookup_within("mind", "a", Some("0ms")).await, "RUNNING");
    world.tls.change(&new.server(HOST), Some(&new_clients));
    assert_eq!(rig.lookup_within("mind", "a", Some("0ms")).await, "RUNNING, stale: UNAVAILABLE");
    // half of a change is not a change, and an invalid file changes nothing
    std::fs::write(key.path(), "no key").unwrap();
    std::fs::write(world.ca_file.path(), new.pem()).unwrap();
    assert_eq!(rig.lookup_within("mind", "a", Some("0ms")).await, "RUNNING, stale: UNAVAILABLE");
    std::fs::write(cert.path(), &second.cert).unwrap();
    std::fs::write(key.path(), &second.key).unwrap();
    again(&rig, "RUNNING").await;
}

/// A gateway that does not trust the upstream's certificate, and what a reload with other options came to.
async fn reloaded(options: &str) -> (Rig, World, Reloaded) {
    let (rig, world) = World::new(None).await.gateway("proxy: 'PROXY'").await;
    assert_eq!(rig.lookup("mind", "a").await, "UNAVAILABLE");
    let env: Environment = [("MIND_TOKEN", TOKEN)].into_iter().collect();
    let config = Config::from_yaml(&world.yaml("https", options), &env);
    let reloaded = rig.serving.reload().adopt(config, ReloadTrigger::Signal);
    (rig, world, reloaded)
}

#[tokio::test]
async fn a_reload_applies_changed_egress_options() {
    let (rig, _world, reloaded) = reloaded("proxy: 'PROXY', ca_file: 'CA'").await;
    let Reloaded::Done { changed, need_restart, .. } = reloaded else { panic!("a valid file") };
    assert_eq!((changed, need_restart), (vec!["sources.mind.ca_file".to_owned()], vec![]));
    assert_eq!(rig.lookup("mind", "a").await, "RUNNING");
}

#[tokio::test]
async fn a_reload_rejects_an_egress_file_that_is_missing() {
    let (_rig, _world, reloaded) = reloaded("proxy: 'PROXY', ca_file: /no/such/ca.crt").await;
    let Reloaded::Refused(faults) = reloaded else { panic!("a missing file") };
    assert_eq!(faults[0].0, "sources.mind.ca_file");
    assert!(faults[0].1.contains("/no/such/ca.crt"), "{faults:?}");
}

/// Repeats a lookup until this is the answer.
async fn again(rig: &Rig, expected: &str) {
    let mut last = String::new();
    let settled = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            last = rig.lookup_within("mind", "a", Some("0ms")).await;
            if last == expected {
                return;
            }
        }
    };
    let settled = tokio::time::timeout(LIMIT, settled).await.is_ok();
    assert!(settled, "it is {last}");
}

#[tokio::test]
async fn the_certificate_of_an_https_proxy_is_verified() {
    let world = World::new(Some(USER)).await;
    let stranger = Authority::new();
    let good = world.authority.server("127.0.0.1");
    let front = TlsEnd::start(&stranger.server("127.0.0.1"), None, world.proxy.address).await;
    let options = format!("proxy: 'https://{}', proxy_credential: USER, ca_file: 'CA'", front.address);
    let output = world.check("https", &options, &[]).await;
    assert!(output.contains("UnknownIssuer"), "{output}");
    assert_eq!(world.proxy.passed(), []);
    front.change(&good, None);
    assert_eq!(world.check("https", &options, &[]).await, ANSWERS);
    assert_eq!(world.proxy.passed()[0].credential.as_deref(), Some(USER));
}

#[tokio::test]
async fn issuer_keys_are_fetched_through_the_environment_proxy() {
    let world = World::new(None).await;
    let jwt = "jwt: [{ issuer: 'https://login.example', audience: jobgate, sources: [mind], jwks: { url: 'https://login.example/keys' } }]\n";
    let config = Scratch::new(&format!("{}{jwt}", world.yaml("https", "proxy: none, ca_file: 'CA'")));
    let env = [("MIND_TOKEN", TOKEN), ("HTTPS_PROXY", &world.proxy.url())];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    // the tunnel connects to a server of another name
    let warned = |line: &str| line.contains("issuer keys not fetched").then(|| line.to_owned());
    let line = gateway.find("a warning", warned).await;
    assert!(line.contains("UnknownIssuer"), "{line}");
    assert_eq!(world.proxy.passed()[0].line, "CONNECT login.example:443");
}
