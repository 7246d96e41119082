//! `jobgate simulate`: the simulated upstreams alone.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::server::lifecycle;
use crate::simulator::{Addresses, Scenario, Simulator};

/// Serves a scenario, or the built-in one, until the process is told to stop.
///
/// # Errors
/// When the scenario has faults or an address is taken.
pub fn run(scenario: Option<&Path>, addresses: Addresses) -> anyhow::Result<ExitCode> {
    let scenario = match scenario {
        Some(path) => read(path)?,
        None => Scenario::demo(),
    };
    super::runtime()?.block_on(async {
        let simulator = Simulator::start(scenario, addresses).await?;
        writeln!(std::io::stdout(), "{simulator}")?;
        lifecycle::told_to_stop().await?;
        simulator.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown}: cannot be read"))?;
    Scenario::from_yaml(&text).with_context(|| format!("{shown}: is no scenario"))
}
