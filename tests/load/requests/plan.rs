//! The course of a run: for each case both servers are restarted, warmed up, and driven alternately.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{Addresses, Simulator};

use super::cases::{self, Case, Expected, SOURCE};
use super::client::{self, Load};
use super::report::{Figures, Report};
use super::servers::{Cpu, Server};

/// Until the pools, the caches and the allocator of a server are in a steady state.
const WARM_UP: Duration = Duration::from_secs(1);
/// The variable with the simulator's token for the gateway.
const TOKEN: &str = "BENCH_TOKEN";

/// The options of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Length of a round.
    pub(crate) seconds: u64,
    /// Rounds of each server in each case.
    pub(crate) rounds: u32,
    /// Connections under load.
    pub(crate) connections: u32,
    /// The only case to run.
    pub(crate) only: Option<String>,
    /// Whether tracing is compared instead of the bare handler.
    pub(crate) tracing: bool,
}

/// A folder for this run, removed at the end with its content.
struct Folder(PathBuf);

/// Runs the benchmark and prints the report.
///
/// # Errors
/// When an answer is not 200, or not the expected one, or an upstream was called while the cache was measured.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let scenario = cases::scenario();
    let token = scenario.mindbridge.token.clone();
    let simulator = Simulator::start(scenario, Addresses::ephemeral()).await?;
    let key = keys::generate()?;
    let config = folder.write("jobgate.yaml", configuration(&simulator, &key).as_bytes())?;

    let mut report = Report::new(plan);
    let mut cases = Vec::from(cases::all());
    cases.retain(|case| plan.only.as_ref().is_none_or(|only| only == case.name));
    ensure!(!cases.is_empty(), "no case has this name; leave --case out to run them all");
    for case in cases {
        if plan.tracing {
            traced(plan, &case, &config, token.expose_secret(), &key, &mut report).await?;
            continue;
        }
        let gateway = Server::gateway(&config, &[(TOKEN, token.expose_secret())]).await?;
        let request: Arc<[u8]> = request(&case, &key).into();
        // the first answer fills the cache, the second comes from it
        client::execute(gateway.address, &request).await?;
        let (head, body) = client::execute(gateway.address, &request).await?;
        case.check(&body).with_context(|| format!("case {}", case.name))?;
        let answer = folder.write(case.name, &[head, body.clone()].concat())?;
        let bare = Server::bare(&answer).await?;
        let expected = Arc::new(Expected::new(&body));

        let upstream_calls = simulator.handle().record().len();
        let mut pair = [("gateway", &gateway, Figures::default()), ("bare", &bare, Figures::default())];
        for (_, server, _) in &pair {
            client::drive(server.address, &request, &expected, plan.connections, WARM_UP).await?;
        }
        for _ in 0..plan.rounds {
            for (name, server, figures) in &mut pair {
                let time = Duration::from_secs(plan.seconds);
                let before = server.cpu()?;
                let load = client::drive(server.address, &request, &expected, plan.connections, time).await?;
                let cpu = server.cpu()?.since(before);
                Report::round(case.name, name, &load, cpu)?;
                figures.add(load, cpu);
            }
        }
        let new_calls = simulator.handle().record().len() - upstream_calls;
        ensure!(
            new_calls == 0,
            "case {}: the upstream was called {new_calls} times, so the cache was not measured",
            case.name
        );
        let [(_, _, mut gateway_figures), (_, _, mut bare_figures)] = pair;
        gateway_figures.memory = gateway.memory()?;
        bare_figures.memory = bare.memory()?;
        report.case(&case, (request.len(), body.len()), gateway_figures, bare_figures);
    }
    simulator.stop().await;
    report.print()
}

/// Measures the same gateway with tracing off, at 1 % and at 100 %, each in its own process, alternately.
async fn traced(
    plan: &Plan,
    case: &Case,
    config: &Path,
    token: &str,
    key: &SecretString,
    report: &mut Report,
) -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let request: Arc<[u8]> = request(case, key).into();
    let mut servers = Vec::new();
    let mut answer = Vec::new();
    for (name, ratio) in [("off", None), ("1 %", Some("0.01")), ("100 %", Some("1"))] {
        let mut env = vec![(TOKEN, token)];
        if let Some(ratio) = ratio {
            env.extend([
                ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
                // the cost of traces alone
                ("OTEL_METRICS_EXPORTER", "none"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", ratio),
                // large enough for the spans of one core, so that exporting is measured and no span is dropped
                ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2048"),
            ]);
        }
        let server = Server::gateway(config, &env).await?;
        client::execute(server.address, &request).await?;
        let (_, body) = client::execute(server.address, &request).await?;
        case.check(&body).with_context(|| format!("case {}", case.name))?;
        let expected = Arc::new(Expected::new(&body));
        client::drive(server.address, &request, &expected, plan.connections, WARM_UP).await?;
        servers.push((name, server, expected, Figures::default()));
        answer = body;
    }
    for _ in 0..plan.rounds {
        for (name, server, expected, figures) in &mut servers {
            let before = server.cpu()?;
            let time = Duration::from_secs(plan.seconds);
            let load = client::drive(server.address, &request, expected, plan.connections, time).await?;
            let cpu = server.cpu()?.since(before);
            Report::round(case.name, name, &load, cpu)?;
            figures.add(load, cpu);
        }
    }
    let mut measured = Vec::new();
    for (name, server, _, mut figures) in servers {
        figures.memory = server.memory()?;
        measured.push((name, figures));
    }
    report.modes(case, (request.len(), answer.len()), measured);
    Ok(())
}

/// A collector that accepts everything and parses nothing.
struct Collector {
    url: String,
    _task: JoinSet<()>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = axum::Router::new()
            .fallback(async |_: axum::body::Bytes| [(http::header::CONTENT_TYPE, "application/x-protobuf")])
            .layer(axum::extract::DefaultBodyLimit::disable());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, routes).await.unwrap_or_default() });
        Ok(Self { url, _task: task })
    }
}

/// Both sides of the comparison get these bytes.
fn request(case: &Case, key: &SecretString) -> Vec<u8> {
    let body = case.body();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         accept: application/graphql-response+json\r\ncontent-length: {}\r\n\r\n",
        key.expose_secret(),
        body.len()
    );
    (head + &body).into_bytes()
}

/// An operator's configuration except for `fresh_for`: an hour, so that running jobs stay inside their window.
fn configuration(simulator: &Simulator, key: &SecretString) -> String {
    let hash = ClientConfig::hex(&keys::hash(key.expose_secret()));
    format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\n\
         sources:\n  {SOURCE}: {{ upstream: mindbridge, base_url: \"{}\", credential: {{ bearer: {{ env: {TOKEN} }} }} }}\n\
         clients:\n  - {{ name: bench, key_sha256: \"{hash}\", sources: [{SOURCE}] }}\n\
         cache: {{ fresh_for: 1h }}\n\
         store: {{ kind: memory }}\n\
         limits: {{ requests_per_second: 1000000, burst: 1000000, concurrent_requests: 1000 }}\n\
         telemetry: {{ log_format: json }}\n",
        simulator.mindbridge_url()
    )
}

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-query-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Figures {
    fn add(&mut self, load: Load, cpu: Cpu) {
        self.elapsed += load.elapsed;
        self.latencies.extend(load.latencies);
        self.cpu.user += cpu.user;
        self.cpu.system += cpu.system;
    }
}
