//! Planted secrets are searched for in all output of the gateway: logs at every level, answers, errors, the process
//! list, the files on disk, and the debug output of its types.
//!
//! The gateway is the real binary with its log at `trace`, dependencies included, so that no output is missed. The
//! simulated upstreams run in this process: they receive the secrets legitimately, and their output is not searched.

use std::fmt::Write as _;
use std::time::Duration;

use jobgate::config::{ClientConfig, Config, Environment};
use jobgate::outbound::credentials::SecretFiles;
use jobgate::outbound::http::SecretMask;
use jobgate::outbound::identity::clients::ClientKeys;
use jobgate::outbound::identity::keys;
use jobgate::outbound::identity::watch_tokens::WatchTokens;
use jobgate::ports::credentials::{Credential, Credentials as _};
use jobgate::ports::identity::WatchToken;
use jobgate::server::build::Gateway;
use jobgate_simulator::{Addresses, Scenario, SimFault, Simulator};
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use self::all_faults::{FaultPlan, yaml};
use self::inputs::attempt;
use self::scanner::{Canary, found};
use crate::support::egress::{Authority, Proxy};
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, describe};
use crate::support::streams::LIMIT;
use crate::support::wire;

mod all_faults;
mod inputs;
mod rotated;
mod scanner;
mod startup;

/// Words in the output that the faults cause.
const WORDS: [&str; 6] =
    ["THROTTLED", "CREDENTIAL_REJECTED", "UNAVAILABLE", "TIMED_OUT", "BAD_ANSWER", "UNCONFIGURED"];

/// The address of a proxy without a listener.
const NO_PROXY: &str = "http://127.0.0.1:1";

/// All the canaries of a run.
struct Planted {
    token: Canary,
    api_key: Canary,
    /// A token that MindBridge rejects.
    refused: Canary,
    /// A secret of two lines, which is not a valid header.
    broken: Canary,
    client: Canary,
    /// The client key of no client.
    stranger: Canary,
    /// The password of a proxy in the options of a source.
    proxy: Canary,
    /// The password of a proxy in the environment.
    environment_proxy: Canary,
    /// The key of a client certificate for upstreams.
    certificate_key: Canary,
    proxy_file: Scratch,
    certificate: Scratch,
    key_file: Scratch,
}

impl Planted {
    fn new() -> Self {
        let issued = Authority::new().client();
        let middle = issued.key.lines().nth(2).unwrap().to_owned();
        let proxy = Canary::new("the proxy's password", "");
        Self {
            proxy_file: Scratch::new(&format!("gateway:{}", proxy.secret)),
            certificate: Scratch::new(&issued.cert),
            key_file: Scratch::new(&issued.key),
            proxy,
            environment_proxy: Canary::new("the password of the environment's proxy", ""),
            // with a character that no request id has: a value that could be an id is returned to its sender
            certificate_key: Canary::of("the certificate's key", format!("{middle}="), &middle),
            token: Canary::new("the token", ""),
            api_key: Canary::new("the api key", ""),
            refused: Canary::new("the refused token", ""),
            broken: Canary::new("the broken secret", ""),
            client: Canary::new("the client key", "jg_"),
            stranger: Canary::new("the stranger's key", "jg_"),
        }
    }

    fn all(&self) -> [&Canary; 9] {
        let Self { token, api_key, refused, broken, client, stranger, .. } = self;
        let Self { proxy, environment_proxy, certificate_key, .. } = self;
        [token, api_key, refused, broken, client, stranger, proxy, environment_proxy, certificate_key]
    }

    /// Options of a source that is called through a proxy, or with a client certificate.
    fn ways_out(&self, proxy: &str) -> [String; 3] {
        let credential = format!("proxy_credential: {{ file: \"{}\" }}", self.proxy_file.path());
        let pair =
            format!("client_cert: \"{}\", client_key: \"{}\"", self.certificate.path(), self.key_file.path());
        [
            format!("proxy: \"{proxy}\", {credential}, allow_plaintext: true"),
            format!("proxy: \"{proxy}\", {credential}, {pair}"),
            // a file with a secret in place of a certificate
            format!("proxy: none, ca_file: \"{}\"", self.key_file.path()),
        ]
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("METRICS_KEY", self.api_key.secret.clone()),
            ("REFUSED_TOKEN", self.refused.secret.clone()),
            (
                "HTTPS_PROXY",
                format!("http://gateway:{}@127.0.0.1:1", encoded(&self.environment_proxy.secret)),
            ),
            ("BROKEN_TOKEN", format!("{}\nand a second line", self.broken.secret)),
            // for the host that does not exist, where no DNS server answers: the shutdown waits for the system's
            // timeout
            ("RES_OPTIONS", "timeout:1 attempts:1".to_owned()),
        ]
    }
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| format!("%{byte:02X}");
    text.bytes().map(one).collect::<Vec<_>>().concat()
}

async fn simulator(planted: &Planted) -> Simulator {
    let mut scenario = Scenario::default();
    scenario.mindbridge.token = SecretString::from(planted.token.secret.as_str());
    scenario.supermetrics.api_key = SecretString::from(planted.api_key.secret.as_str());
    Simulator::start(scenario, Addresses::ephemeral()).await.unwrap()
}

#[tokio::test]
async fn no_planted_secret_leaks_with_text_logs() {
    search("text").await;
}

#[tokio::test]
async fn no_planted_secret_leaks_with_json_logs() {
    search("json").await;
}

/// Normal traffic, every fault, and a search of all output.
async fn search(format: &str) {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    // one that rejects every credential, and repeats it
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = Proxy::start(Some("nobody"), nowhere, nowhere).await;
    let plan = FaultPlan::new(&planted, token_file.path(), [&urls[0], &urls[1]], &proxy.url());
    let upstreams = simulator.handle();
    plan.mindbridge.iter().for_each(|job| upstreams.add_job(job.clone()));
    plan.supermetrics.iter().for_each(|job| upstreams.add_job(job.clone()));

    let config = Scratch::new(&yaml(&planted, &plan, format));
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
    let mut descriptions = Vec::new();
    for calm in [true, false] {
        if !calm {
            plan.faults.iter().for_each(|fault| upstreams.push_fault(fault.clone()));
        }
        for refs in plan.refs.chunks(200) {
            for operation in ["All", "Rows"] {
                let body =
                    json!({ "query": query, "operationName": operation, "variables": { "refs": refs } });
                let reply = wire::post(address, key, &body).await;
                if !calm && operation == "All" {
                    descriptions.extend(reply.data()["jobs"].as_array().unwrap().iter().map(describe));
                }
                replies.push(reply);
            }
        }
    }
    let rows = "query($ref: JobRef!) { job(ref: $ref) { ... on SupermetricsJob { rows(first: 3) { nodes { cells } problem { message } } } } }";
    for reference in
        plan.refs.iter().filter(|it| it["external"]["source"].as_str().unwrap().starts_with('s')).take(20)
    {
        replies.push(
            wire::post(address, key, &json!({ "query": rows, "variables": { "ref": reference } })).await,
        );
    }
    for secret in planted.all() {
        replies.extend(attempt(address, &secret.secret).await);
        replies.extend(attempt(admin, &secret.secret).await);
    }

    // Everything in the plan was requested and reported; on a busy machine some requests timed out, and are repeated,
    // a few at a time.
    let played = || upstreams.record().iter().filter(|request| request.fault.is_some()).count();
    let is_reported = |descriptions: &[String], word: &str| {
        descriptions.iter().any(|description| description.contains(word))
    };
    let until = Instant::now() + LIMIT;
    while Instant::now() < until
        && (played() < plan.faults.len() || !WORDS.iter().all(|word| is_reported(&descriptions, word)))
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for refs in plan.refs.chunks(20) {
            let body = json!({ "query": query, "operationName": "All", "variables": { "refs": refs } });
            let reply = wire::post(address, key, &body).await;
            descriptions.extend(reply.data()["jobs"].as_array().unwrap().iter().map(describe));
            replies.push(reply);
        }
    }
    assert!(played() >= plan.faults.len(), "{} faults were played", played());

    let mut leaks = found(&planted.all(), "the process list", &gateway.command_line());
    gateway.signal("TERM").await;
    let (status, log) = gateway.ended().await;
    assert_eq!(status.code(), Some(0));
    leaks.extend(found(&planted.all(), "the log", &log));
    for reply in &replies {
        leaks.extend(found(&planted.all(), "an answer", &format!("{}\n{}", reply.head, reply.body)));
    }
    assert_eq!(leaks, Vec::<String>::new());

    // The search was effective: every fault was played, every word was logged, and the log suppressed nothing.
    for word in WORDS {
        assert!(is_reported(&descriptions, word), "{word} was never reported: {descriptions:?}");
    }
    assert!(
        proxy.passed().iter().any(|passed| passed.credential.is_some()),
        "the proxy received its password"
    );
    for word in ["TRACE", "hyper_util", "sending a request", "source rejected the credential"] {
        assert!(log.contains(word), "the log does not contain {word:?}");
    }
}

/// The output of the command line for a configuration, valid or not.
#[tokio::test]
async fn check_prints_no_planted_secret() {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    let plan = FaultPlan::new(&planted, token_file.path(), [&urls[0], &urls[1]], NO_PROXY);
    plan.faults
        .iter()
        .for_each(|fault| simulator.handle().push_fault(SimFault { ids: vec![], ..fault.clone() }));
    let good = Scratch::new(&yaml(&planted, &plan, "text"));
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
        let (code, output) =
            run(&[vec!["check", "--config", config.path()], args.clone()].concat(), &environment).await;
        assert_eq!(code, Some(78), "{output}");
        assert!(output.len() > 200, "{output}");
        leaks.extend(found(&planted.all(), "check", &output));
    }
    environment.push(("JOBGATE_SERVER__LISTEN", secret));
    environment.push(("JOBGATE_SERVER__NONSENSE", secret));
    let (_, output) = run(&["serve", "--config", good.path()], &environment).await;
    assert!(output.contains("SERVER__LISTEN") && output.contains("SERVER__NONSENSE"), "{output}");
    leaks.extend(found(&planted.all(), "serve", &output));
    // an unknown key of the file is repeated in the error: that is how a typing error is found
    leaks.retain(|leak| !leak.contains("is not an option"));
    assert_eq!(leaks, Vec::<String>::new());
}

/// The types that accept a secret, each with one.
fn holders(planted: &Planted) -> impl std::fmt::Debug {
    let secret = |canary: &Canary| SecretString::from(canary.secret.as_str());
    let bearer = Credential::Bearer(secret(&planted.token));
    let api_key = Credential::ApiKey(secret(&planted.api_key));
    let hash = keys::hash(&planted.client.secret);
    let client = ClientConfig {
        name: "c".to_owned(),
        key_sha256: vec![hash],
        sources: std::collections::BTreeMap::new(),
    };
    let long = SecretString::from(planted.token.secret.repeat(2));
    (
        SecretMask::new([&bearer, &api_key]),
        WatchTokens::shared(&long).unwrap(),
        WatchToken { token: secret(&planted.client), expires_at: jiff::Timestamp::UNIX_EPOCH },
        ClientKeys::new(&[client]),
        [bearer, api_key],
    )
}

/// The debug output of the types, and so every panic message with one.
#[tokio::test]
async fn debug_output_of_types_contains_no_secret() {
    let planted = Planted::new();
    let simulator = simulator(&planted).await;
    let token_file = Scratch::new(&planted.token.secret);
    let urls = [simulator.mindbridge_url(), simulator.supermetrics_url()];
    let plan = FaultPlan::new(&planted, token_file.path(), [&urls[0], &urls[1]], NO_PROXY);
    let env: Environment = planted.environment().into_iter().collect();
    let config = Config::from_yaml(&yaml(&planted, &plan, "text"), &env).unwrap();
    let (files, unreadable) = SecretFiles::read(&config.sources, &env);
    let held: Vec<Option<Credential>> = config.sources.keys().map(|name| files.current(name)).collect();
    assert!(held.iter().flatten().count() > 50);
    let gateway = Gateway::build(&config, &env).await.unwrap();
    let mut printed =
        format!("{env:#?} {config:#?} {files:#?} {unreadable:#?} {held:#?} {gateway:#?} {simulator:#?}");
    write!(printed, "{:#?}", holders(&planted)).unwrap();
    // a panic message contains its argument
    let quoted = (&env, &config, &files, &held, &gateway);
    let panics = std::panic::AssertUnwindSafe(|| panic!("{quoted:?}"));
    let panic = std::panic::catch_unwind(panics).unwrap_err();
    let output = panic.downcast::<String>().unwrap();
    assert!(output.contains("SecretFiles("), "{output}");
    printed.push_str(&output);
    write!(printed, "{:#}", config.effective().unwrap()).unwrap();
    for problem in unreadable {
        writeln!(printed, "{problem} {problem:#?}").unwrap();
    }
    assert_eq!(found(&planted.all(), "a type's own print", &printed), Vec::<String>::new());
}
