//! The binary: installs the TLS provider, takes the snapshot of the environment, and hands over to the command line.

use std::process::ExitCode;

use jobgate::cli;
use jobgate::config::Environment;
use mimalloc::MiMalloc;

/// Chosen by measurement, also for the memory after a burst: "Allocator" in `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // First of all, since a TLS client built without a provider panics. It fails only where one is installed already.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    cli::run(std::env::args_os(), &Environment::of_process())
}
