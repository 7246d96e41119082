//! Kills the gateway in the middle of its work, again and again, and counts what it had told a client and forgot. Prints the
//! counts and the 95 % bound; fails when anything was lost. `cargo bench --bench crashes -- --kills 300`.
#![expect(dead_code, reason = "what the integration tests share; this program needs a part of it")]
#![expect(clippy::unwrap_used, reason = "a tool that cannot go on says so by panicking")]

#[path = "../support"]
mod support {
    pub(crate) mod crashes;
    pub(crate) mod process;
    pub(crate) mod scratch;
    pub(crate) mod server;
    pub(crate) mod wire;
}

use std::io::Write as _;

use clap::Parser as _;

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// How often to kill it
    #[arg(long, default_value_t = 300)]
    kills: usize,
    /// Passed by cargo, and of no meaning here
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = std::io::stdout();
    let outcome = runtime.block_on(support::crashes::run(arguments.kills, |so_far| {
        if so_far.kills % 20 == 0 {
            let (kills, told, lost) = (so_far.kills, so_far.told, so_far.lost.len());
            writeln!(std::io::stdout(), "{kills} kills, {told} ends told, {lost} lost or changed").ok();
        }
    }));
    let (kills, told, lost) = (outcome.kills, outcome.told, outcome.lost.len());
    writeln!(
        out,
        "{kills} kills, {told} ends told, {lost} lost or changed, {} files set aside",
        outcome.set_aside
    )?;
    for one in &outcome.lost {
        writeln!(out, "  {one}")?;
    }
    anyhow::ensure!(lost == 0, "{lost} of {told} ends were lost or changed");
    let bound = |tries: usize| 3.0 / f64::from(u32::try_from(tries.max(1)).unwrap_or(u32::MAX));
    writeln!(
        out,
        "with 95 % confidence fewer than {:.2} % of kills lose something, and fewer than {:.4} % of ends are lost",
        100.0 * bound(kills),
        100.0 * bound(told)
    )?;
    Ok(())
}
