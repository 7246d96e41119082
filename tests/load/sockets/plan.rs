//! The course of a run: for each transport the gateway and then the broadcaster are restarted, filled with watchers,
//! and given change after change, the next when all watchers have received the one before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, MindBridgeTenant, Scenario, Simulator};

use super::message::id;
use super::report::{Figures, Report};
use super::servers::Server;
use super::socket::Carrier;
use super::watchers::{Target, Watchers};

/// The source of all jobs in the configuration.
pub(super) const SOURCE: &str = "audit";
/// The variable with the simulator's token for the gateway.
const TOKEN: &str = "BENCH_TOKEN";
/// Until memory that was needed only for opening sockets is released.
const REST: Duration = Duration::from_secs(2);
/// Between two changes, so that each is a separate burst.
const PAUSE: Duration = Duration::from_millis(200);
/// Open files of this process in addition to its sockets.
const OTHER_FILES: usize = 500;

/// The options of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Concurrent subscriptions.
    pub(crate) sockets: usize,
    /// Jobs that they watch.
    pub(crate) jobs: u32,
    /// For how long the jobs change.
    pub(crate) seconds: u64,
    /// The only transport.
    pub(crate) only: Option<Carrier>,
}

/// The configuration file, removed at the end.
struct Scratch(PathBuf);

/// How all jobs are changed.
enum Trigger<'a> {
    Simulator(&'a Simulator),
    Request(&'a Server),
}

/// Runs the benchmark and prints the report: success unless an update was lost or duplicated.
///
/// # Errors
/// When a server does not start, a socket is rejected or breaks, or the system allows too few open files.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<ExitCode> {
    enough_files(plan.sockets + OTHER_FILES)?;
    let mut report = Report::new(plan);
    let mut clean = true;
    for &carrier in Carrier::value_variants() {
        if plan.only.is_some_and(|only| only != carrier) {
            continue;
        }
        let gateway = gateway(plan, carrier).await?;
        let bare = broadcaster(plan, carrier, gateway.changes).await?;
        clean &= gateway.is_clean() && bare.is_clean();
        report.pair(carrier, gateway, bare);
    }
    report.print()?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gateway(plan: &Plan, carrier: Carrier) -> anyhow::Result<Figures> {
    let jobs = (0..plan.jobs).map(|job| MindBridgeJob::new(&id(job), &[(0, "IN_PROGRESS")])).collect();
    let mindbridge = MindBridgeTenant { jobs, ..MindBridgeTenant::default() };
    let token = mindbridge.token.clone();
    let scenario = Scenario { mindbridge, ..Scenario::default() };
    let simulator = Simulator::start(scenario, Addresses::ephemeral()).await?;
    let config = Scratch::new(&configuration(&simulator, plan.sockets))?;
    let server = Server::gateway(&config.0, &[(TOKEN, token.expose_secret())]).await?;
    let target = Target { address: server.address, carrier, bare: false, jobs: plan.jobs };
    let figures = measure(plan, &server, target, &Trigger::Simulator(&simulator), None).await;
    simulator.stop().await;
    figures
}

async fn broadcaster(plan: &Plan, carrier: Carrier, changes: u64) -> anyhow::Result<Figures> {
    let server = Server::bare(Path::new(&plan.jobs.to_string())).await?;
    let target = Target { address: server.address, carrier, bare: true, jobs: plan.jobs };
    measure(plan, &server, target, &Trigger::Request(&server), Some(changes)).await
}

/// Measures one server: for as long as the plan says, or as many changes as the other one had.
async fn measure(
    plan: &Plan,
    server: &Server,
    target: Target,
    trigger: &Trigger<'_>,
    changes: Option<u64>,
) -> anyhow::Result<Figures> {
    // one watcher to warm it up: what is allocated once is not the cost of a socket
    let (first, _) = Watchers::open(target, 1).await?;
    drop(first);
    let (memory_before, cpu_before) = (server.memory()?, server.cpu()?);
    let (watchers, opening) = Watchers::open(target, plan.sockets).await?;
    let opening_cpu = server.cpu()?.since(cpu_before);
    sleep(REST).await;
    let memory = server.memory()?;

    let (calls_before, cpu_before, start) = (trigger.calls(), server.cpu()?, Instant::now());
    let mut version = 1;
    let goes_on = |version: u64| match changes {
        Some(changes) => version <= changes,
        None => start.elapsed() < Duration::from_secs(plan.seconds),
    };
    while goes_on(version) {
        version += 1;
        watchers.expect(version);
        trigger.change(plan.jobs, version, false).await?;
        watchers.arrival().await?;
        sleep(PAUSE).await;
    }
    let (elapsed, cpu) = (start.elapsed(), server.cpu()?.since(cpu_before));
    let (calls, in_the_end) = (trigger.calls() - calls_before, server.memory()?);
    watchers.expect(version + 1);
    trigger.change(plan.jobs, version + 1, true).await?;
    let counters = watchers.end().await?;
    Ok(Figures {
        sockets: plan.sockets,
        changes: version - 1,
        opening,
        opening_cpu,
        memory: memory.resident.saturating_sub(memory_before.resident),
        after: in_the_end.resident.saturating_sub(memory_before.resident),
        peak: in_the_end.peak.saturating_sub(memory_before.resident),
        elapsed,
        cpu,
        calls,
        counters,
    })
}

impl Trigger<'_> {
    async fn change(&self, jobs: u32, version: u64, is_final: bool) -> anyhow::Result<()> {
        match self {
            Self::Simulator(simulator) => {
                let handle = simulator.handle();
                let step = MindBridgeStep::new(if is_final { "COMPLETE" } else { "IN_PROGRESS" });
                (0..jobs).try_for_each(|job| handle.set_state(&id(job), step.clone()))?;
            }
            Self::Request(server) => {
                let mut stream = TcpStream::connect(server.address).await?;
                let request = format!(
                    "POST /change/{version}/{is_final} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                     content-length: 0\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                ensure!(answer.starts_with(b"HTTP/1.1 204 "), "{}", String::from_utf8_lossy(&answer));
            }
        }
        Ok(())
    }

    fn calls(&self) -> usize {
        match self {
            Self::Simulator(simulator) => simulator.handle().record().len(),
            Self::Request(_) => 0,
        }
    }
}

/// An operator's configuration for so many sockets of one client, with an interval at which a change is found in a
/// second.
fn configuration(simulator: &Simulator, sockets: usize) -> String {
    let room = sockets * 2;
    format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, max_connections: {room} }}\n\
         sources:\n  {SOURCE}: {{ upstream: mindbridge, base_url: \"{}\", credential: {{ bearer: {{ env: {TOKEN} }} }}, \
         budget: {{ per_second: 1000, per_hour: 1000000 }} }}\n\
         poll: {{ min_interval: 500ms, max_interval: 1s }}\n\
         store: {{ kind: memory }}\n\
         streams: {{ max_streams_per_client: {room}, max_operations_per_client: {room} }}\n\
         telemetry: {{ log_format: json, log_level: \"warn,jobgate::server=info\" }}\n",
        simulator.mindbridge_url()
    )
}

fn enough_files(wanted: usize) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of files")?;
    let soft = line.split_whitespace().nth(3).and_then(|soft| soft.parse::<usize>().ok());
    ensure!(
        soft.is_none_or(|soft| soft >= wanted),
        "the system allows {soft:?} open files of the {wanted} needed: run `ulimit -n {wanted}`, or use fewer --sockets"
    );
    Ok(())
}

impl Scratch {
    fn new(text: &str) -> anyhow::Result<Self> {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-streams-{}", std::process::id()));
        fs::write(&path, text)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
