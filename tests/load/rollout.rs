//! Replaces three replicas one by one behind a balancer, thirty times, under requests and open streams. Prints what
//! clients observed and the 95 % bound; fails when a request failed, a stream was closed without the signal to
//! reconnect, or too many reconnected at once. `cargo bench --bench rollout -- --rollouts 30`; with `--profile dev` it
//! needs no release build. Needs redis-server.
#![expect(dead_code, reason = "shared with the integration tests; this program needs a part of it")]
#![expect(clippy::unwrap_used, reason = "a tool that cannot continue panics")]

#[path = "../support"]
mod support {
    pub(crate) mod balancer;
    pub(crate) mod process;
    pub(crate) mod redis;
    pub(crate) mod rollout;
    pub(crate) mod scratch;
    pub(crate) mod server;
    pub(crate) mod streams;
    pub(crate) mod wire;
}

use std::io::Write as _;

use clap::Parser as _;
use support::rollout::{ANNOUNCED, Outcome, Plan};

/// How many times the mean may reconnect at once.
const PEAK: f64 = 3.0;

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// How often all replicas are replaced
    #[arg(long, default_value_t = 30)]
    rollouts: usize,
    /// Replicas at the same time
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Requests per second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pace: u32,
    /// Streams, half by WebSocket and half event streams
    #[arg(long, default_value_t = 300)]
    streams: usize,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Arguments { rollouts, replicas, pace, streams, bench: _ } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan = Plan { rollouts, replicas, pace, streams };
    let outcome = runtime.block_on(support::rollout::run(plan, |so_far| print(so_far).unwrap_or_default()));
    for failed in &outcome.failed {
        writeln!(std::io::stdout(), "  {failed}")?;
    }
    let ended: usize = ANNOUNCED.iter().filter_map(|how| outcome.ends.get(*how)).sum();
    let ends: usize = outcome.ends.values().sum();
    anyhow::ensure!(outcome.failed.is_empty(), "{} requests failed", outcome.failed.len());
    anyhow::ensure!(ended == ends, "{} streams closed without the signal to reconnect", ends - ended);
    anyhow::ensure!(ends >= rollouts * streams, "{ends} ends: not every stream was closed in every rollout");
    anyhow::ensure!(outcome.worst_peak <= PEAK, "{:.1} times the mean came back at once", outcome.worst_peak);
    let bound = |tries: usize| 300.0 / f64::from(u32::try_from(tries.max(1)).unwrap_or(u32::MAX));
    writeln!(
        std::io::stdout(),
        "with 95 % confidence fewer than {:.1} % of rollouts fail a request, and fewer than {:.4} % of requests",
        bound(outcome.rollouts),
        bound(outcome.requests),
    )?;
    Ok(())
}

fn print(so_far: &Outcome) -> std::io::Result<()> {
    let Outcome { rollouts, requests, reused, failed, crossed, ends, worst_peak, spreads, longest_gap } =
        so_far;
    writeln!(
        std::io::stdout(),
        "{rollouts} rollouts, {requests} requests ({reused} on kept connections), {} failed, {crossed} crossed a close and were asked again, ends of streams {ends:?}, \
         peak {worst_peak:.2} of the mean, spread over {:?} at least, away {longest_gap:?} at most",
        failed.len(),
        spreads.first().copied().unwrap_or_default(),
    )
}
