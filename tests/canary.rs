//! Planted secrets are searched for in everything the gateway says: logs at every level, answers, errors, the process
//! list, and what its types print of themselves.
//!
//! The gateway is the real binary with its log at `trace`, dependencies included, since only so nothing it says can pass
//! by. The simulated upstreams run in this process: they get the secrets rightly, and what they say is not searched.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jobgate::config::{ClientConfig, Config, Environment};
use jobgate::outbound::credentials::SecretFiles;
use jobgate::outbound::identity::keys;
use jobgate::ports::credentials::{Credential, Credentials as _};
use jobgate::server::build::Gateway;
use jobgate::simulator::{
    Addresses, Endpoint, Fault, FaultKind, MindBridgeJob, Scenario, Simulator, SupermetricsJob, Upstream,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::faults::table;
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, external, told};
use crate::support::wire::{self, Reply};

/// A secret that cannot be mistaken for anything else, with characters that each encoding writes in its own way.
struct Canary {
    name: &'static str,
    secret: String,
    /// How it could appear.
    forms: Vec<String>,
}

impl Canary {
    fn new(name: &'static str, mark: &str) -> Self {
        let random = |length| (0..length).map(|_| fastrand::alphanumeric()).collect::<String>();
        let core = random(20);
        let secret = format!("{mark}{core}/+={}%&\"\\~", random(4));
        let hex = |text: &str| text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        // The core alone is in every plain, percent-encoded and JSON form; base64 depends on what stands before it.
        let mut forms = vec![core.clone(), hex(&core)];
        for shift in 0..3 {
            let text = format!("{}{core}", "x".repeat(shift));
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                // without the ends, which mix with the neighbours
                let encoded = engine.encode(&text);
                forms.push(encoded.chars().skip(4).take(encoded.len() - 8).collect());
            }
        }
        Self { name, secret, forms }
    }
}

/// Every canary that is in a text, with the lines around it.
fn found(canaries: &[&Canary], place: &str, text: &str) -> Vec<String> {
    let mut leaks = Vec::new();
    for canary in canaries {
        for line in text.lines().filter(|line| canary.forms.iter().any(|form| line.contains(form))) {
            leaks.push(format!("{} in {place}: {line}", canary.name));
        }
    }
    leaks
}

#[test]
fn the_scanner_finds_each_form_of_a_planted_leak() {
    let canary = Canary::new("planted", "jg_");
    let secret = &canary.secret;
    let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let plants = [
        secret.clone(),
        format!("authorization: Bearer {secret}"),
        format!("http://h/query/status?json=%7B%22api_key%22%3A%22{percent}%22%7D"),
        percent,
        json!({ "key": secret }).to_string(),
        format!("{secret:?}"),
        STANDARD_NO_PAD.encode(secret),
        STANDARD_NO_PAD.encode(format!("user:{secret}")),
        URL_SAFE_NO_PAD.encode(format!("Bearer {secret}")),
        secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")),
    ];
    for plant in plants {
        let leaks = found(&[&canary], "a log", &format!("one line\nbefore {plant} after\nanother"));
        assert_eq!(leaks.len(), 1, "{plant}");
    }
    assert_eq!(found(&[&canary], "a log", "nothing\nhere"), Vec::<String>::new());
}

/// All the canaries of a run.
struct Planted {
    token: Canary,
    api_key: Canary,
    /// A token that MindBridge refuses.
    refused: Canary,
    /// A secret of two lines, which no header can carry.
    broken: Canary,
    client: Canary,
    /// A client key that nobody has.
    stranger: Canary,
}

impl Planted {
    fn new() -> Self {
        Self {
            token: Canary::new("the token", ""),
            api_key: Canary::new("the api key", ""),
            refused: Canary::new("the refused token", ""),
            broken: Canary::new("the broken secret", ""),
            client: Canary::new("the client key", "jg_"),
            stranger: Canary::new("the stranger's key", "jg_"),
        }
    }

    fn all(&self) -> [&Canary; 6] {
        [&self.token, &self.api_key, &self.refused, &self.broken, &self.client, &self.stranger]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("METRICS_KEY", self.api_key.secret.clone()),
            ("REFUSED_TOKEN", self.refused.secret.clone()),
            ("BROKEN_TOKEN", format!("{}\nand a second line", self.broken.secret)),
        ]
    }
}

/// A question for each fault: its own source, so that one that is closed does not shield the next, and its own ids, so
/// that all faults are in force together.
struct Storm {
    faults: Vec<Fault>,
    /// YAML of the sources, each with the name of its place.
    sources: String,
    refs: Vec<Value>,
    mind: Vec<MindBridgeJob>,
    metrics: Vec<SupermetricsJob>,
}

/// Finished jobs of Supermetrics.
const ROWS: usize = 4;

const MIND: Upstream = Upstream::MindBridge;
const METRICS: Upstream = Upstream::Supermetrics;

impl Storm {
    fn new(planted: &Planted, token_file: &str, simulator: [&str; 2]) -> Self {
        let mut storm =
            Self { faults: vec![], sources: String::new(), refs: vec![], mind: vec![], metrics: vec![] };
        let bearer = format!("bearer: {{ file: \"{token_file}\" }}");
        let to = |secret: &str| FaultKind::Redirect { to: format!("http://127.0.0.1:1/?api_key={secret}") };
        let mut mind: Vec<FaultKind> = table::mindbridge().into_iter().map(|row| row.fault).collect();
        mind.extend([FaultKind::EchoCredential { status: 200 }, FaultKind::EchoCredential { status: 500 }]);
        mind.push(to(&planted.token.secret));
        let mut metrics: Vec<FaultKind> = table::supermetrics().into_iter().map(|row| row.fault).collect();
        metrics
            .extend([FaultKind::EchoCredential { status: 200 }, FaultKind::EchoCredential { status: 500 }]);
        metrics.push(to(&planted.api_key.secret));
        for fault in mind {
            storm.row(MIND, simulator[0], &bearer, Fault::always(MIND, fault).on(Endpoint::One), 1);
        }
        for (_, fault, _, _) in table::mindbridge_query() {
            storm.row(MIND, simulator[0], &bearer, Fault::always(MIND, fault).on(Endpoint::Query), 2);
        }
        for form in ["api_key", "bearer"].repeat(ROWS / 2) {
            storm.place(METRICS, simulator[1], &format!("{form}: {{ env: METRICS_KEY }}"), 1);
        }
        for form in ["api_key", "bearer"] {
            for fault in metrics.clone() {
                let credential = format!("{form}: {{ env: METRICS_KEY }}");
                storm.row(METRICS, simulator[1], &credential, Fault::always(METRICS, fault), 1);
            }
        }
        // and what needs no fault upstream: refused, broken and missing secrets, a closed port, no such host
        for (url, credential) in [
            (simulator[0], "bearer: { env: REFUSED_TOKEN }"),
            (simulator[0], "bearer: { env: BROKEN_TOKEN }"),
            (simulator[0], "bearer: { env: MISSING_TOKEN }"),
            ("http://127.0.0.1:1/api", bearer.as_str()),
            ("https://127.0.0.1:1/api", bearer.as_str()),
            ("https://nowhere.invalid/api", bearer.as_str()),
        ] {
            storm.place(MIND, url, credential, 1);
        }
        storm
    }

    fn row(&mut self, upstream: Upstream, url: &str, credential: &str, fault: Fault, jobs: usize) {
        let ids = self.place(upstream, url, credential, jobs);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.faults.push(fault.for_ids(&ids));
    }

    /// A source of its own and the ids of its jobs.
    fn place(&mut self, upstream: Upstream, url: &str, credential: &str, jobs: usize) -> Vec<String> {
        // a finished job is not asked for again: only the first few, so that there are rows to read
        let word = if self.metrics.len() < ROWS { "SUCCESS" } else { "RUNNING" };
        let number = self.refs.len();
        let name = format!("{}{number}", if upstream == MIND { "m" } else { "s" });
        let line = format!(
            "  {name}: {{ upstream: {}, base_url: \"{url}\", credential: {{ {credential} }}, status_timeout: 1s, \
             budget: {{ per_second: 1000, per_hour: 100000, concurrency: 100 }} }}",
            upstream.as_str()
        );
        writeln!(self.sources, "{line}").unwrap();
        let ids: Vec<String> = (0..jobs).map(|at| format!("job{number}-{at}")).collect();
        for id in &ids {
            self.refs.push(external(&name, id));
            match upstream {
                MIND => self.mind.push(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])),
                METRICS => self.metrics.push(SupermetricsJob::new(id, &[(0, word)])),
            }
        }
        ids
    }
}

/// The headers and URLs in which a caller could show a key, right or wrong, well-formed or not.
async fn knock(gateway: std::net::SocketAddr, key: &str) -> Vec<Reply> {
    let query = r#"{"query":"{ sources { name } }"}"#;
    let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    let mut replies = Vec::new();
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("Bearer  {key} {key}")),
        ("authorization", format!("Basic {}", STANDARD_NO_PAD.encode(format!("user:{key}")))),
        ("authorization", key.to_owned()),
        ("x-api-key", key.to_owned()),
        ("cookie", format!("session={key}")),
        ("x-request-id", key.to_owned()),
        ("origin", format!("http://{key}")),
        ("accept", format!("application/json; key=\"{encoded}\"")),
        ("content-encoding", key.to_owned()),
    ] {
        let headers = [("content-type", "application/json"), (name, value.as_str())];
        replies.push(wire::exchange(gateway, &wire::request("POST", "/graphql", &headers, query)).await);
    }
    for path in [
        format!("/graphql?query=%7Bsources%7Bname%7D%7D&access_token={encoded}"),
        format!("/graphql?api_key={encoded}"),
        format!("/{encoded}"),
        format!("/graphql/{encoded}?{encoded}"),
    ] {
        replies.push(wire::get(gateway, &path).await);
    }
    let bearer = format!("Bearer {key}");
    let stream = r#"{"query":"subscription { jobUpdates(refs: [{ external: { source: \"nowhere\", externalId: \"a\" } }]) { isFinal } }"}"#;
    for accept in ["text/event-stream", "multipart/mixed;subscriptionSpec=\"1.0\""] {
        let headers =
            [("content-type", "application/json"), ("accept", accept), ("authorization", bearer.as_str())];
        replies.push(wire::exchange(gateway, &wire::request("POST", "/graphql", &headers, stream)).await);
    }
    for (name, value) in
        [("authorization", bearer.as_str()), ("origin", key), ("sec-websocket-protocol", key)]
    {
        let upgrade = [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", key)];
        let headers = [upgrade.as_slice(), &[(name, value)]].concat();
        replies.push(wire::exchange(gateway, &wire::request("GET", "/graphql", &headers, "")).await);
    }
    let headers = [("authorization", bearer.as_str()), ("prefer", key), ("if-none-match", key)];
    let path = format!("/v1/jobs/{encoded}/{encoded}");
    replies.push(wire::exchange(gateway, &wire::request("GET", &path, &headers, "")).await);
    replies
}

/// The configuration of a storm.
fn yaml(planted: &Planted, storm: &Storm, format: &str) -> String {
    let hash = ClientConfig::hex(&keys::hash(&planted.client.secret));
    let mut names: Vec<&str> =
        storm.sources.lines().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name).collect();
    names.dedup();
    format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\n\
         store: {{ kind: memory }}\n\
         telemetry: {{ log_level: trace, log_format: {format} }}\n\
         clients: [{{ name: c, key_sha256: \"{hash}\", sources: [{}] }}]\nsources:\n{}",
        names.join(", "),
        storm.sources
    )
}

async fn simulator(planted: &Planted) -> Simulator {
    let mut scenario = Scenario::default();
    scenario.mindbridge.token = SecretString::from(planted.token.secret.as_str());
    scenario.supermetrics.api_key = SecretString::from(planted.api_key.secret.as_str());
    Simulator::start(scenario, Addresses::ephemeral()).await.unwrap()
}

#[tokio::test]
async fn no_planted_secret_leaves_the_gateway_with_a_log_for_people() {
    search("text").await;
}

#[tokio::test]
async fn no_planted_secret_leaves_the_gateway_with_a_log_for_collectors() {
    search("json").await;
}

/// A calm, a storm of every fault, and a look at all that was said.
async fn search(format: &str) {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    let storm = Storm::new(&planted, token_file.path(), [&urls[0], &urls[1]]);
    let upstreams = simulator.handle();
    storm.mind.iter().for_each(|job| upstreams.add_job(job.clone()));
    storm.metrics.iter().for_each(|job| upstreams.add_job(job.clone()));

    let config = Scratch::new(&yaml(&planted, &storm, format));
    let environment = planted.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut gateway = Process::start(&["serve", "--config", config.path()], &environment);
    let address = gateway.address("public").await;
    let admin = gateway.address("admin").await;

    let key = Some(planted.client.secret.as_str());
    let query = format!(
        "query($refs: [JobRef!]!) {{ jobs(refs: $refs, maxStaleness: \"0ms\") {ANY} }} \
             query Rows($refs: [JobRef!]!) {{ jobs(refs: $refs, maxStaleness: \"1h\") {{ ... on SupermetricsJob {{ requestId query {{ accounts }} result {{ totalRows }} }} ... on MindBridgeJob {{ error errorMessage }} ... on JobProblem {{ message ref {{ externalId }} }} }} sources {{ name health }} }}"
    );
    let query = query.replacen("query(", "query All(", 1);
    let mut replies = Vec::new();
    let mut told_all = Vec::new();
    for calm in [true, false] {
        if !calm {
            storm.faults.iter().for_each(|fault| upstreams.push_fault(fault.clone()));
        }
        for refs in storm.refs.chunks(200) {
            for operation in ["All", "Rows"] {
                let body =
                    json!({ "query": query, "operationName": operation, "variables": { "refs": refs } });
                let reply = wire::post(address, key, &body).await;
                if !calm && operation == "All" {
                    told_all.extend(reply.data()["jobs"].as_array().unwrap().iter().map(told));
                }
                replies.push(reply);
            }
        }
    }
    let rows = "query($ref: JobRef!) { job(ref: $ref) { ... on SupermetricsJob { rows(first: 3) { nodes { cells } problem { message } } } } }";
    for reference in
        storm.refs.iter().filter(|it| it["external"]["source"].as_str().unwrap().starts_with('s')).take(20)
    {
        replies.push(
            wire::post(address, key, &json!({ "query": rows, "variables": { "ref": reference } })).await,
        );
    }
    for secret in planted.all() {
        replies.extend(knock(address, &secret.secret).await);
        replies.extend(knock(admin, &secret.secret).await);
    }

    // Everything the storm holds was asked for; on a busy machine the last of it may still be on its way.
    let played = || upstreams.record().iter().filter(|asked| asked.fault.is_some()).count();
    while played() < storm.faults.len() {
        let next = upstreams.asked(upstreams.record().len() + 1);
        let patience = std::time::Duration::from_secs(30);
        assert!(tokio::time::timeout(patience, next).await.is_ok(), "{} faults were played", played());
    }

    let mut leaks = found(&planted.all(), "the process list", &gateway.command_line());
    gateway.signal("TERM").await;
    let (status, log) = gateway.ended().await;
    assert_eq!(status.code(), Some(0));
    leaks.extend(found(&planted.all(), "the log", &log));
    for reply in &replies {
        leaks.extend(found(&planted.all(), "an answer", &format!("{}\n{}", reply.head, reply.body)));
    }
    assert_eq!(leaks, Vec::<String>::new());

    // The search was worth something: everything was played, everything was said, and the log held nothing back.
    for word in ["THROTTLED", "CREDENTIAL_REJECTED", "UNAVAILABLE", "TIMED_OUT", "BAD_ANSWER", "UNCONFIGURED"]
    {
        assert!(told_all.iter().any(|told| told.contains(word)), "{word} was never told: {told_all:?}");
    }
    for word in
        ["TRACE", "hyper_util", "upstream.call", "sending a request", "refuses the configured credential"]
    {
        assert!(log.contains(word), "the log does not hold {word:?}");
    }
}

/// What the command line says of a configuration, good or bad.
#[tokio::test]
async fn no_planted_secret_is_printed_by_check() {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    let storm = Storm::new(&planted, token_file.path(), [&urls[0], &urls[1]]);
    storm
        .faults
        .iter()
        .for_each(|fault| simulator.handle().push_fault(Fault { ids: vec![], ..fault.clone() }));
    let good = Scratch::new(&yaml(&planted, &storm, "text"));
    let secret = &planted.token.secret;
    // secrets in places where none belongs
    let bad = Scratch::new(&format!(
        "{secret:?}: 1\nserver: {{ listen: {secret:?}, {secret:?}: 2 }}\nsources:\n  a: {{ upstream: {secret:?}, base_url: \"https://user:{}@h/?api_key={}\", credential: {{ bearer: {secret:?} }} }}\n  b: {{ upstream: mindbridge, base_url: https://h, credential: {{ bearer: {{ env: {secret:?} }} }} }}\nclients: [{{ name: {secret:?}, key_sha256: {secret:?}, sources: [{secret:?}] }}]\n",
        planted.api_key.forms[0], planted.api_key.forms[0]
    ));
    let environment = planted.environment();
    let mut environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut leaks = Vec::new();
    for (config, args) in
        [(&good, vec!["--print"]), (&good, vec!["--online"]), (&bad, vec![]), (&bad, vec!["--print"])]
    {
        let (code, said) =
            run(&[vec!["check", "--config", config.path()], args.clone()].concat(), &environment).await;
        assert_eq!(code, Some(78), "{said}");
        assert!(said.len() > 200, "{said}");
        leaks.extend(found(&planted.all(), "check", &said));
    }
    environment.push(("JOBGATE_SERVER__LISTEN", secret));
    environment.push(("JOBGATE_SERVER__NONSENSE", secret));
    let (_, said) = run(&["serve", "--config", good.path()], &environment).await;
    assert!(said.contains("SERVER__LISTEN") && said.contains("SERVER__NONSENSE"), "{said}");
    leaks.extend(found(&planted.all(), "serve", &said));
    // a key of the file is repeated as the option that it is not: that is what finds the typing error
    leaks.retain(|leak| !leak.contains("is not an option"));
    assert_eq!(leaks, Vec::<String>::new());
}

/// What the types print of themselves, and so every panic that quotes one.
#[tokio::test]
async fn no_type_prints_a_secret() {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    let storm = Storm::new(&planted, token_file.path(), [&urls[0], &urls[1]]);
    let env: Environment = planted.environment().into_iter().collect();
    let config = Config::from_yaml(&yaml(&planted, &storm, "text"), &env).unwrap();
    let (files, unreadable) = SecretFiles::read(&config.sources, &env);
    let held: Vec<Option<Credential>> = config.sources.keys().map(|name| files.current(name)).collect();
    assert!(held.iter().flatten().count() > 50);
    let gateway = Gateway::build(&config, &env).await.unwrap();
    let mut printed =
        format!("{env:#?} {config:#?} {files:#?} {unreadable:#?} {held:#?} {gateway:#?} {simulator:#?}");
    write!(printed, "{:#}", config.effective().unwrap()).unwrap();
    for problem in unreadable {
        writeln!(printed, "{problem} {problem:#?}").unwrap();
    }
    assert_eq!(found(&planted.all(), "a type's own print", &printed), Vec::<String>::new());
}
