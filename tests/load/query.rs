//! The cost of a cached query: the real server in its own process, compared with a bare handler that returns the same
//! bytes. There is no limit on time; it fails when an answer is wrong. How to run it and how to read it:
//! `docs/performance.md`.

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
    /// Rounds of each server in each case; the servers alternate
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Keep-alive connections, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Only the case of this name
    #[arg(long)]
    case: Option<String>,
    /// Compare tracing off, at 1 % and at 100 % instead, each with a collector that accepts everything
    #[arg(long)]
    tracing: bool,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
    /// Run as the bare handler: answer with the content of this file
    #[arg(long, hide = true)]
    bare: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(answer) = &arguments.bare {
        // as many threads as the gateway has
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(bare::serve(answer));
    }
    // one thread, so that the driver uses one core at most and leaves the other to the server
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(plan::run(&plan::Plan {
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        connections: arguments.connections,
        only: arguments.case,
        tracing: arguments.tracing,
    }))
}
