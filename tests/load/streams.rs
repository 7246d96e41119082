//! The cost of a subscription: thousands of sockets on the real server in its own process, compared with a bare
//! broadcaster in the same run, with the same clients. There is no limit on time; it fails when an update is lost or
//! duplicated.

mod sockets;

use std::process::ExitCode;

use clap::Parser as _;

use sockets::{broadcaster, plan, socket::Carrier};

/// Compares the gateway with a bare broadcaster, in this run and on this machine.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Concurrent subscriptions, each on its own socket
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    sockets: u32,
    /// Jobs, shared evenly among the subscriptions; all of them change at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    jobs: u32,
    /// For how long jobs change, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only this transport
    #[arg(long)]
    carrier: Option<Carrier>,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
    /// Run as the bare broadcaster, of so many jobs
    #[arg(long, hide = true)]
    bare: Option<u32>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(jobs) = arguments.bare {
        // as many threads as the gateway has
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(broadcaster::serve(jobs))?;
        return Ok(ExitCode::SUCCESS);
    }
    // one thread, so that the driver uses one core at most and leaves the other to the server
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(plan::run(&plan::Plan {
        sockets: arguments.sockets as usize,
        jobs: arguments.jobs,
        seconds: arguments.seconds,
        only: arguments.carrier,
    }))
}
