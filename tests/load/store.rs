//! The cost of a million completed jobs in the embedded store: to write, to start with, to look up, on disk and in
//! memory. There is no limit on time; it fails when an answer is wrong. `cargo bench --bench store -- --jobs 1000000`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use futures_util::future::join_all;
use jiff::Timestamp;
use jobgate::domain::details::{Details, EntityRef, MindBridgeDetails, UserInfo};
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Failure, Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::outbound::stores::embedded::{EmbeddedSettings, EmbeddedStore, RowLimits};
use jobgate::outbound::stores::memory::Retention;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate::ports::store::JobStore as _;
use tokio::time::Instant;

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// How many jobs
    #[arg(long, default_value_t = 1_000_000)]
    jobs: usize,
    /// Jobs that complete at the same time, so that they share a commit
    #[arg(long, default_value_t = 1_000)]
    together: usize,
    /// Lookups of jobs that only the file contains, one after the other
    #[arg(long, default_value_t = 10_000)]
    lookups: usize,
    /// Seconds of writing one result after the other, so that the search for old jobs happens meanwhile
    #[arg(long, default_value_t = 75)]
    steady: u64,
    /// The memory cache, in MiB
    #[arg(long, default_value_t = 64)]
    memory: u64,
    /// Writes to this folder until it is killed: the option of the program's child process
    #[arg(long, hide = true)]
    writes_on: Option<PathBuf>,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(folder) = &arguments.writes_on {
        return runtime.block_on(write_on(&arguments, folder));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-store-{}", std::process::id()));
    let folder = Folder(folder);
    runtime.block_on(run(&arguments, &folder.0))
}

fn open(arguments: &Arguments, folder: &Path) -> anyhow::Result<EmbeddedStore> {
    let day = Duration::from_hours(24);
    let (max_bytes, missing) = (arguments.memory << 20, Duration::from_secs(5));
    let retention = Retention { max_bytes, finished: 365 * day, unfinished: day, missing };
    let settings = EmbeddedSettings {
        path: folder.to_owned(),
        max_bytes: u64::MAX,
        rows: RowLimits::default(),
        retention,
    };
    Ok(EmbeddedStore::open(settings, Arc::new(SystemClock))?)
}

/// Writes results forever, and prints a line when the first are written.
async fn write_on(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let store = open(arguments, folder)?;
    let now = SystemClock.now();
    for first in (arguments.jobs..).step_by(100) {
        join_all((first..first + 100).map(|number| store.keep(job(number, now)))).await;
        writeln!(std::io::stdout(), "{first}")?;
    }
    Ok(())
}

/// Starts a process that writes, and kills it in the middle.
fn killed(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("--writes-on").arg(folder).arg("--jobs").arg(arguments.jobs.to_string());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn()?;
    let reader = BufReader::new(child.stdout.take().context("no pipe")?);
    let enough = reader.lines().take(20).count();
    child.kill()?;
    child.wait()?;
    ensure!(enough == 20, "the other process ended by itself");
    Ok(())
}

async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let now = SystemClock.now();
    let store = open(arguments, folder)?;
    let start = Instant::now();
    for first in (0..arguments.jobs).step_by(arguments.together) {
        let some = first..(first + arguments.together).min(arguments.jobs);
        join_all(some.map(|number| store.keep(job(number, now)))).await;
    }
    let wrote = start.elapsed();
    let health = store.health();
    ensure!(health.jobs == arguments.jobs as u64 && !health.degraded, "not all is written: {health:?}");
    let size = health.bytes;
    store.close().await;
    drop(store);

    let jobs = arguments.jobs as u64;
    writeln!(
        out,
        "{jobs} jobs, {} together: written in {wrote:.1?}, {:.1?} a job",
        arguments.together,
        wrote / u32::try_from(jobs)?
    )?;
    writeln!(out, "on disk: {} MiB, {} bytes a job", size >> 20, size / jobs)?;
    let start = Instant::now();
    let store = open(arguments, folder)?;
    writeln!(out, "start after a clean end: {:.1?}, every page checked", start.elapsed())?;
    store.close().await;
    drop(store);
    killed(arguments, folder)?;
    let before = resident()?;
    let start = Instant::now();
    let store = open(arguments, folder)?;
    writeln!(out, "start after kill -9: {:.1?}, every page checked", start.elapsed())?;
    writeln!(out, "memory after the start: {} MiB more", resident()?.saturating_sub(before) >> 20)?;

    let mut took = Vec::with_capacity(arguments.lookups);
    for _ in 0..arguments.lookups {
        let wanted = job(fastrand::usize(0..arguments.jobs), now);
        let start = Instant::now();
        let found = store.get(std::slice::from_ref(&wanted.job.key)).await?;
        took.push(start.elapsed());
        ensure!(found.first() == Some(&Some(wanted)), "another job was found");
    }
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() - 1) * share / 100).copied().unwrap_or_default();
    writeln!(
        out,
        "lookup, most from the file: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        at(50),
        at(99),
        at(100)
    )?;
    let mut took = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(arguments.steady) {
        let began = Instant::now();
        store.keep(job(2 * arguments.jobs + took.len(), now)).await;
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() - 1) * share / 100).copied().unwrap_or_default();
    writeln!(
        out,
        "write of one result, during the search for old jobs: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
        at(50),
        at(99),
        at(100)
    )?;
    let memory: Vec<JobKey> = (0..1_000).map(|number| job(number, now).job.key.clone()).collect();
    store.get(&memory).await?;
    let start = Instant::now();
    store.get(&memory).await?;
    writeln!(out, "lookup from memory: {:.1?}", start.elapsed() / 1_000)?;
    writeln!(out, "memory at the end: {} MiB more", resident()?.saturating_sub(before) >> 20)?;
    Ok(())
}

/// A completed job as an upstream describes one, with its usual length.
fn job(number: usize, now: Timestamp) -> Observation {
    let text = |text: &str| Some(text.to_owned());
    let user =
        || Some(UserInfo { user_id: text("5f9b3c2e1d4a5b6c7d8e9f02"), user_name: text("Ada Lovelace") });
    let details = MindBridgeDetails {
        version: Some(7),
        kind: text("ANALYSIS_RUN"),
        entity: Some(EntityRef { id: text("5f9b3c2e1d4a5b6c7d8e9f01"), entity_type: text("ANALYSIS") }),
        created_by: user(),
        last_modified_by: user(),
        ..MindBridgeDetails::default()
    };
    let life = if number.is_multiple_of(10) {
        Life::Failed(Failure { code: None, message: text("column 7 of ledger-2025.csv is not a date") })
    } else {
        Life::Succeeded
    };
    let ids = (SourceName::parse("audit"), ExternalId::parse(&format!("65f0c0ffee{number:014x}")));
    let (Ok(source), Ok(external_id)) = ids else { unreachable!("both are well formed") };
    let new = Job::new(JobKey { source, external_id }, life, Details::MindBridge(Box::new(details)));
    let job = Job { native_state: text("COMPLETE"), created_at: Some(now), updated_at: Some(now), ..new };
    Observation::new(Arc::new(job), now, now)
}

/// The memory in use, in bytes.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
