//! `jobgate simulate`: the simulated upstreams alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jobgate_client::Terminal;

use super::exit::Exit;
use super::runtime;
use crate::server::lifecycle;
use jobgate_simulator::{Addresses, Scenario, Simulator};

#[derive(Debug, clap::Args)]
pub(super) struct SimulateArguments {
    /// Scenario file (YAML, see docs/simulator.md) [default: the scenario of `jobgate demo`]
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Address of the simulated MindBridge
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    mindbridge: SocketAddr,
    /// Address of the simulated Supermetrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    supermetrics: SocketAddr,
}

pub(super) fn run(arguments: &SimulateArguments, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    let scenario = arguments.scenario.as_deref().map_or_else(|| Ok(Scenario::demo()), read)?;
    let addresses = Addresses { mindbridge: arguments.mindbridge, supermetrics: arguments.supermetrics };
    runtime::start()?.block_on(async {
        let simulator = Simulator::start(scenario, addresses).await?;
        terminal.say(&simulator)?;
        lifecycle::stop_requested().await?;
        simulator.stop().await;
        Ok(Exit::Done)
    })
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown}: cannot be read"))?;
    Scenario::from_yaml(&text).with_context(|| format!("{shown}: is not a valid scenario"))
}
