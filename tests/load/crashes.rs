//! Kills, suspends and empties the dependencies of the gateway repeatedly, and counts delivered results that it later
//! reports differently. Prints the counts and the 95 % bound; fails when there is one. It needs redis-server. `cargo
//! bench --bench crashes -- --loop kill-replica --times 300`; `--profile dev` avoids the long build.
#![expect(dead_code, reason = "shared with the integration tests; this program needs a part of it")]
#![expect(clippy::unwrap_used, reason = "a tool that cannot continue panics")]

#[path = "../support"]
mod support {
    pub(crate) mod crashes;
    pub(crate) mod loops;
    pub(crate) mod process;
    pub(crate) mod redis;
    pub(crate) mod scratch;
    pub(crate) mod server;
    pub(crate) mod streams;
    pub(crate) mod wire;
}

mod clock_steps;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Parser as _, ValueEnum};
use support::crashes;
use support::loops::convergence::Outage;
use support::loops::outages::DataLoss;
use support::loops::{Outcome, convergence, kills, outages, stops};

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// The loop to run
    #[arg(long = "loop", value_enum, default_value = "kill-embedded")]
    what: Loop,
    /// How often
    #[arg(long, default_value_t = 300)]
    times: usize,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Loop {
    /// kill -9 of a single process with the embedded store, about to report more
    KillEmbedded,
    /// kill -9 of a random one of three replicas under load
    KillReplica,
    /// The owner of a lease suspended for 1.5 times its lease between fetch and write
    StopOwner,
    /// kill -9 of Redis, which restarts with the data on disk
    RedisKill,
    /// FLUSHALL
    RedisFlush,
    /// kill -9 of Redis, which restarts without data
    RedisEmpty,
    /// A Redis without free memory, for a moment
    RedisEvict,
    /// Replicas that observe different things while Redis is killed, and a budget that they share
    DisagreeKill,
    /// The same while it is suspended
    DisagreeStop,
    /// The same around FLUSHALL
    DisagreeFlush,
    /// The same while it accepts no writes
    DisagreeReadOnly,
    /// The same while it has no memory left
    DisagreeMemory,
    /// The system clock of a process stepped by an hour or a day, repeatedly
    ClockSteps,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let reported = AtomicUsize::new(0);
    let progress = |tries: usize, bad: &[String]| {
        let mut out = std::io::stdout();
        for one in bad.iter().skip(reported.swap(bad.len(), Ordering::Relaxed)) {
            writeln!(out, "{tries}: {one}").ok();
        }
        if tries.is_multiple_of(20) {
            writeln!(out, "{tries} tries, {} bad", bad.len()).ok();
        }
    };
    let times = arguments.times;
    let outcome = runtime.block_on(async {
        match arguments.what {
            Loop::KillEmbedded => embedded(times, progress).await,
            Loop::KillReplica => kills::run(times, progress).await,
            Loop::StopOwner => stops::run(times, progress).await,
            Loop::RedisKill => outages::run(DataLoss::Kill, times, progress).await,
            Loop::RedisFlush => outages::run(DataLoss::Flush, times, progress).await,
            Loop::RedisEmpty => outages::run(DataLoss::Empty, times, progress).await,
            Loop::RedisEvict => outages::run(DataLoss::Evict, times, progress).await,
            Loop::DisagreeKill => convergence::run(Outage::Kill, times, progress).await,
            Loop::DisagreeStop => convergence::run(Outage::Stop, times, progress).await,
            Loop::DisagreeFlush => convergence::run(Outage::Flush, times, progress).await,
            Loop::DisagreeReadOnly => convergence::run(Outage::ReadOnly, times, progress).await,
            Loop::ClockSteps => clock_steps::run(times, progress).await,
            Loop::DisagreeMemory => convergence::run(Outage::OutOfMemory, times, progress).await,
        }
    });
    // The result of the last check of all.
    progress(outcome.tries, &outcome.bad);
    let mut out = std::io::stdout();
    let (tries, checked, bad) = (outcome.tries, outcome.checked, outcome.bad.len());
    writeln!(out, "{:?}: {tries} tries, {checked} answers checked, {bad} bad", arguments.what)?;
    for one in &outcome.notes {
        writeln!(out, "  {one}")?;
    }
    anyhow::ensure!(bad == 0, "{bad} of {checked} answers were lost, older or changed");
    let bound = |tries: usize| 300.0 / f64::from(u32::try_from(tries.max(1)).unwrap_or(u32::MAX));
    writeln!(
        out,
        "with 95 % confidence fewer than {:.2} % of tries cause an error, and fewer than {:.4} % of answers after one are wrong",
        bound(tries),
        bound(checked)
    )?;
    Ok(())
}

async fn embedded(times: usize, progress: impl Fn(usize, &[String]) + Send + Sync) -> Outcome {
    let came = crashes::run(times, |so_far| progress(so_far.kills, &so_far.lost)).await;
    let notes = vec![
        format!("{} terminal states delivered, {} files quarantined", came.checked, came.quarantined),
        format!("{} of {} tracked jobs followed again by the next process", came.followed, came.kills),
    ];
    Outcome { tries: came.kills, checked: came.checked, bad: came.lost, notes }
}
