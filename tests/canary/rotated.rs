//! Secrets that change: rotation, keys, signed tokens, watch tokens and reloads, with an upstream that repeats each
//! secret that it ever received. The search includes the files that the gateway leaves.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate_simulator::{
    Addresses, FaultKind, MadeUpAnswer, MadeUpBody, MindBridgeJob, Scenario, SimFault, SimUpstream,
    Simulator, SupermetricsJob,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::inputs::{attempt, converse, init, send_garbage};
use super::scanner::{Canary, found};
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, external};
use crate::support::streams::LIMIT;
use crate::support::tokens::Issuer;
use crate::support::wire::{self, Reply};

/// A folder that is removed with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("jobgate-canary-{:x}", fastrand::u64(..)));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The names and the bytes of all files in it. Invalid UTF-8 is replaced, and secrets are text.
    fn contents(&self) -> String {
        let (mut text, mut left) = (String::new(), vec![self.0.clone()]);
        while let Some(path) = left.pop() {
            writeln!(text, "{}", path.display()).unwrap();
            if path.is_dir() {
                left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                text.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap()));
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// The command lines of all processes, which every user of the machine can read.
fn process_list() -> String {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

/// The planted secrets, by their role.
struct Planted {
    /// Of each source: the first secret, the second, and a rejected one.
    mindbridge: [Canary; 3],
    supermetrics: [Canary; 3],
    /// A text of two lines, which is not a valid header.
    unusable: Canary,
    client: Canary,
    stranger: Canary,
    signing: Canary,
    /// In a key file that contains a private key.
    published: Canary,
}

impl Planted {
    fn new() -> Self {
        let three = |source: &str| {
            ["first", "second", "refused"].map(|which| Canary::new(&format!("the {which} of {source}"), ""))
        };
        Self {
            mindbridge: three("mind"),
            supermetrics: three("metrics"),
            unusable: Canary::new("the unusable one", ""),
            client: Canary::new("the client key", "jg_"),
            stranger: Canary::new("the stranger's key", "jg_"),
            signing: Canary::new("the secret of watch tokens", "with at least thirty-two bytes "),
            published: Canary::new("the private key among the public ones", ""),
        }
    }

    fn all(&self) -> Vec<&Canary> {
        let single = [&self.unusable, &self.client, &self.stranger, &self.signing, &self.published];
        self.mindbridge.iter().chain(&self.supermetrics).chain(single).collect()
    }

    async fn simulator(&self) -> Simulator {
        let mut scenario = Scenario::default();
        scenario.mindbridge.token = SecretString::from(self.mindbridge[0].secret.as_str());
        scenario.mindbridge.jobs =
            ["run", "echo"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).to_vec();
        scenario.supermetrics.api_key = SecretString::from(self.supermetrics[0].secret.as_str());
        scenario.supermetrics.jobs = [("rows", "SUCCESS"), ("echo", "RUNNING")]
            .map(|(id, word)| SupermetricsJob::new(id, &[(0, word)]))
            .to_vec();
        Simulator::start(scenario, Addresses::ephemeral()).await.unwrap()
    }
}

/// The files that the configuration names.
struct Files {
    mindbridge: Scratch,
    supermetrics: Scratch,
    signing: Scratch,
    published: Scratch,
    data: Folder,
}

impl Files {
    fn new(planted: &Planted) -> Self {
        let jwk = json!({ "kty": "EC", "crv": "P-256", "d": planted.published.secret, "x": planted.published.secret });
        Self {
            mindbridge: Scratch::new(&planted.mindbridge[0].secret),
            supermetrics: Scratch::new(&planted.supermetrics[0].secret),
            signing: Scratch::new(&planted.signing.secret),
            published: Scratch::new(&json!({ "keys": [jwk] }).to_string()),
            data: Folder::new(),
        }
    }

    fn yaml(&self, planted: &Planted, simulator: &Simulator, issuer: &Issuer, format: &str) -> String {
        let hash = ClientConfig::hex(&keys::hash(&planted.client.secret));
        let section = issuer.section("[mind]");
        let source = |name: &str, url: &str, form: &str, file: &Scratch| {
            format!(
                "{{ upstream: {name}, base_url: \"{url}\", credential: {{ {form}: {{ file: \"{}\" }} }}, \
                 budget: {{ per_second: 1000, per_hour: 100000, concurrency: 50 }} }}",
                file.path()
            )
        };
        format!(
            "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, header_timeout: 2m }}\n\
             store: {{ path: \"{}\" }}\ntelemetry: {{ log_level: trace, log_format: {format} }}\n\
             poll: {{ min_interval: 100ms, max_interval: 1s, missing_for: 1s }}\n\
             credentials: {{ reload_interval: 100ms }}\nwatch_tokens: {{ secret: {{ file: \"{}\" }} }}\n\
             clients: [{{ name: c, key_sha256: \"{hash}\", sources: [mind, metrics] }}]\n\
             {}, {{ issuer: https://other.example, audience: jobgate, jwks: {{ file: \"{}\" }}, sources: [mind] }}]\n\
             sources:\n  mind: {}\n  metrics: {}\n",
            self.data.0.display(),
            self.signing.path(),
            section.strip_suffix(']').unwrap(),
            self.published.path(),
            source("mindbridge", &simulator.mindbridge_url(), "bearer", &self.mindbridge),
            source("supermetrics", &simulator.supermetrics_url(), "api_key", &self.supermetrics),
        )
    }
}

/// Waits until the credential of a source has this state.
async fn until(gateway: SocketAddr, key: &str, source: usize, expected: &str) {
    let body = json!({ "query": "{ sources { name credential { state } } }" });
    let settled = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            let data = wire::post(gateway, Some(key), &body).await.data();
            let found = data["sources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|it| it["name"] == ["mind", "metrics"][source]);
            if found.unwrap()["credential"]["state"] == expected {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(LIMIT, settled).await.is_ok(), "{source} is not {expected}");
}

/// Every secret that a source ever received, in every field of an answer that may contain text.
fn echoes(planted: &Planted) -> [SimFault; 2] {
    let text = |canaries: &[Canary; 3]| canaries.each_ref().map(|canary| canary.secret.as_str()).join(" ");
    let answer = |body: &Value, echo: String| {
        let body = MadeUpBody::Text {
            content_type: "application/json".to_owned(),
            text: body.to_string().replace('/', "\\/"),
        };
        let headers =
            [("retry-after".to_owned(), echo.clone()), ("x-echo".to_owned(), echo)].into_iter().collect();
        FaultKind::Answer(MadeUpAnswer { status: 200, headers, body, ..MadeUpAnswer::default() })
    };
    let (mindbridge, metrics) = (text(&planted.mindbridge), text(&planted.supermetrics));
    let job = json!({ "id": "echo", "status": "ERROR", "type": mindbridge, "error": mindbridge, "entityId": mindbridge });
    let error = json!({ "code": "QUERY_FAILED", "message": metrics, "description": metrics });
    let query =
        json!({ "meta": { "request_id": metrics, "status_code": "FAILURE" }, "data": [], "error": error });
    [
        SimFault::always(SimUpstream::MindBridge, answer(&job, mindbridge)).for_ids(&["echo"]),
        SimFault::always(SimUpstream::Supermetrics, answer(&query, metrics)).for_ids(&["echo"]),
    ]
}

/// Every kind of request, by every handler.
async fn execute_everywhere(gateway: SocketAddr, credential: &str) -> Vec<String> {
    let bearer = format!("Bearer {credential}");
    let send = async |method: &str, path: &str, accept: &str, body: &str| {
        let mut headers = vec![("authorization", bearer.as_str()), ("accept", accept)];
        headers.extend((!body.is_empty()).then_some(("content-type", "application/json")));
        let reply = wire::exchange(gateway, &wire::request(method, path, &headers, body)).await;
        format!("{}\n{}", reply.head, reply.body)
    };
    let json = "application/json";
    let mut replies = Vec::new();
    for path in ["/", "/page/page.js", "/v1/jobs/mind/run", "/v1/jobs/mind/none", "/v1/nothing", "/nothing"] {
        replies.push(send("GET", path, "*/*", "").await);
    }
    for (source, id) in [("mind", "echo"), ("metrics", "echo"), ("metrics", "rows"), ("mind", "run")] {
        let variables = json!({ "ref": external(source, id) });
        let body = |query: &str| json!({ "query": query, "variables": variables }).to_string();
        let job = format!("query($ref: JobRef!) {{ job(ref: $ref, maxStaleness: \"0ms\") {ANY} }}");
        let track = "mutation($ref: JobRef!) { trackJobs(input: { refs: [$ref], labels: { a: \"b\" } }) { __typename } }";
        let rows = "query($ref: JobRef!) { job(ref: $ref) { ... on SupermetricsJob { rows(first: 3) { nodes { cells } problem { message } } } } }";
        let list =
            format!("{{ jobList {{ nodes {ANY} }} sources {{ name health credential {{ state }} }} }}");
        for query in [job.as_str(), track, rows, &list] {
            replies.push(send("POST", "/graphql", json, &body(query)).await);
        }
        let url = [&job, &variables.to_string()]
            .map(|text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
        replies.push(send("GET", &format!("/graphql?query={}&variables={}", url[0], url[1]), json, "").await);
        replies.push(send("GET", &format!("/v1/jobs/{source}/{id}"), json, "").await);
        let watch = format!(
            "subscription($ref: JobRef!) {{ jobUpdates(refs: [$ref]) {{ kind isFinal result {ANY} }} }}"
        );
        if (source, id) == ("mind", "echo") {
            // the job is complete, so its streams complete too
            for accept in ["text/event-stream", "multipart/mixed;subscriptionSpec=1.0"] {
                replies.push(send("POST", "/graphql", accept, &body(&watch)).await);
            }
        }
        let subscribe =
            json!({ "id": "1", "type": "subscribe", "payload": { "query": watch, "variables": variables } });
        replies.push(converse(gateway, &[init(&json!(bearer)), subscribe.to_string()]).await);
    }
    replies
}

#[tokio::test]
async fn no_rotated_secret_is_leaked_or_stored_with_text_logs() {
    search("text").await;
}

#[tokio::test]
async fn no_rotated_secret_is_leaked_or_stored_with_json_logs() {
    search("json").await;
}

async fn search(format: &str) {
    let planted = Planted::new();
    let (simulator, issuer) = (planted.simulator().await, Issuer::start().await);
    let upstreams = simulator.handle();
    let files = Files::new(&planted);
    let yaml = files.yaml(&planted, &simulator, &issuer, format);
    let config = Scratch::new(&yaml);
    let mut gateway = Process::start(&["serve", "--config", config.path()], &[]);
    let (address, admin) = (gateway.address("public").await, gateway.address("admin").await);
    let read = "issuer keys changed";
    gateway.find(read, |line| line.contains(read).then_some(())).await;
    let key = planted.client.secret.as_str();

    // tokens of three issuers, and rejected ones
    let now = SystemClock.now().as_second();
    let made = json!({
        "query": "mutation($refs: [JobRef!]!) { createWatchToken(input: { refs: $refs }) { token } }",
        "variables": { "refs": [external("mind", "echo"), external("metrics", "echo")] }
    });
    let made = wire::post(address, Some(key), &made).await.data();
    let tokens = [
        ("a signed token", issuer.token("ana", now + 600)),
        ("a renewed token", issuer.token("ana", now + 900)),
        ("a watch token", made["createWatchToken"]["token"].as_str().unwrap().to_owned()),
        ("a token that ended", issuer.token("ana", now - 600)),
        ("a forged token", Issuer::start().await.token("ana", now + 600)),
    ]
    .map(|(name, token)| Canary::token(name, &token));
    let canaries: Vec<&Canary> = planted.all().into_iter().chain(&tokens).collect();
    let mut replies = Vec::new();

    // each source receives three secrets, and repeats them all from then on
    for (source, upstream, secrets, file) in [
        (0, SimUpstream::MindBridge, &planted.mindbridge, &files.mindbridge),
        (1, SimUpstream::Supermetrics, &planted.supermetrics, &files.supermetrics),
    ] {
        // an upstream cannot repeat a secret that no call has contained
        let query = format!("query($ref: JobRef!) {{ job(ref: $ref, maxStaleness: \"0ms\") {ANY} }}");
        let running = [external("mind", "run"), external("metrics", "echo")];
        let lookup_request = json!({ "query": query, "variables": { "ref": running[source] } });
        assert_eq!(wire::post(address, Some(key), &lookup_request).await.data()["job"]["state"], "RUNNING");
        let number = upstreams.also_accept(upstream, &secrets[1].secret);
        fs::write(file.path(), &secrets[1].secret).unwrap();
        let taken = async {
            while !upstreams.record_of(upstream).iter().any(|request| request.credential == Some(number)) {
                upstreams.wait_for_requests(upstreams.record().len() + 1).await;
            }
        };
        assert!(
            tokio::time::timeout(LIMIT, taken).await.is_ok(),
            "the new credential of {source} is not used"
        );
        until(address, key, source, "ACTIVE").await;
        fs::write(file.path(), &secrets[2].secret).unwrap();
        until(address, key, source, "PENDING_REJECTED").await;
        fs::write(file.path(), format!("{}\nand a second line", planted.unusable.secret)).unwrap();
        until(address, key, source, "PENDING_INVALID").await;
    }
    for fault in echoes(&planted) {
        upstreams.push_fault(fault);
    }

    for credential in [key, &tokens[0].secret, &tokens[2].secret] {
        replies.extend(execute_everywhere(address, credential).await);
    }
    assert!(replies.iter().filter(|text| text.contains("[redacted] [redacted] [redacted]")).count() > 20);
    let ping =
        json!({ "type": "ping", "payload": { "authorization": format!("Bearer {}", tokens[1].secret) } });
    let renewal = [init(&json!(format!("Bearer {}", tokens[0].secret))), ping.to_string()];
    replies.push(converse(address, &renewal).await);
    assert!(replies.last().unwrap().contains("\"renewed\":true"), "{replies:?}");
    for canary in [&planted.client, &planted.stranger].into_iter().chain(&tokens) {
        let both = [attempt(address, &canary.secret).await, attempt(admin, &canary.secret).await];
        replies.extend(both.iter().flatten().map(|Reply { head, body, .. }| format!("{head}\n{body}")));
        replies.push(send_garbage(address, key, &canary.secret).await);
    }
    for (url, secret) in [(address, &planted.client), (address, &planted.stranger), (admin, &planted.client)]
    {
        let args = ["job", "get", "mind/echo", "--url", &format!("http://{url}")];
        replies.push(run(&args, &[("JOBGATE_KEY", &secret.secret)]).await.1);
    }

    // a configuration file with secrets in the wrong places
    let wrong = planted.all().into_iter().enumerate();
    let wrong: Vec<String> = wrong
        .map(|(at, it)| format!("{{ name: n{at}, key_sha256: {:?}, sources: [{:?}] }}", it.secret, it.secret))
        .collect();
    fs::write(config.path(), yaml.replace("clients: [", &format!("clients: [{}, ", wrong.join(", "))))
        .unwrap();
    let refused = "configuration not reloaded";
    // repeated each time: a busy machine that does not read so long a log in time drops lines
    let is_logged = async {
        while !gateway.output().contains(refused) {
            gateway.signal("HUP").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, is_logged).await.is_ok(), "{refused} was not reported");
    fs::write(config.path(), &yaml).unwrap();

    let mut leaks = found(&canaries, "the process list", &process_list());
    gateway.signal("TERM").await;
    let (status, mut log) = gateway.ended().await;
    assert_eq!(status.code(), Some(0));
    let kept = files.data.contents();
    assert!(kept.contains("[redacted] [redacted] [redacted]"), "the repeated secrets are stored masked");

    // the same with a damaged file, and its quarantined copy; a new process knows only its own secrets
    damage(&files.data.0.join("jobs.redb"));
    upstreams.clear_faults(None);
    fs::write(files.mindbridge.path(), &planted.mindbridge[1].secret).unwrap();
    let mut gateway = Process::start(&["serve", "--config", config.path()], &[]);
    let address = gateway.address("public").await;
    let lookup_request =
        wire::request("GET", "/v1/jobs/mind/run", &[("authorization", &format!("Bearer {key}"))], "");
    let again = wire::exchange(address, &lookup_request).await;
    assert!(again.body.contains("RUNNING"), "{}", again.body);
    replies.push(again.body);
    gateway.signal("TERM").await;
    log.push_str(&gateway.ended().await.1);
    let left = files.data.contents();
    assert!(left.contains("jobs.redb.damaged-"), "{}", log.len());

    leaks.extend(found(&canaries, "the log", &log));
    leaks.extend(found(&canaries, "the store", &format!("{kept}\n{left}")));
    leaks.extend(found(&canaries, "an answer", &replies.join("\n")));
    assert_eq!(leaks, Vec::<String>::new());
    for word in [
        "TRACE",
        "the previous one stays active",
        "issuer keys not fetched",
        "token rejected",
        "sending a request",
        refused,
    ] {
        assert!(log.contains(word), "the log does not contain {word:?}");
    }
}

/// Overwrites the head of a file and keeps the rest.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.iter_mut().take(1024).for_each(|byte| *byte = !*byte);
    fs::write(path, bytes).unwrap();
}
