//! What a cached query costs: the real server in a process of its own, beside a bare handler that returns the same bytes.
//! No gate on time; it fails when an answer is wrong. How to run it and how to read it: `docs/performance.md`.

mod requests;

use std::path::PathBuf;

use clap::Parser as _;

use requests::{bare, plan};

/// Compares the gateway with a bare handler, in this run and on this machine.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Length of a round, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds of each server in each case; the servers take turns
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Keep-alive connections, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Only the case of this name
    #[arg(long)]
    case: Option<String>,
    /// Compare tracing off, at 1 % and at 100 % instead, each with a collector that takes everything
    #[arg(long)]
    tracing: bool,
    /// Passed by cargo, and of no meaning here
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare handler: answer with what stands in this file
    #[arg(long, hide = true)]
    bare: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(answer) = &arguments.bare {
        // as many threads as the gateway gets
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(bare::serve(answer));
    }
    // one thread, so that the driver takes one core at most and leaves the other to the server
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(plan::run(&plan::Plan {
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        connections: arguments.connections,
        only: arguments.case,
        tracing: arguments.tracing,
    }))
}
