//! The two servers, each in its own process, and the system's figures of a process: its CPU time and its memory.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

/// The unit of CPU time for user space: 100 ticks per second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Server {
    /// Where it listens.
    pub(super) address: SocketAddr,
    pid: u32,
    _child: Child,
    _log: JoinSet<()>,
}

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    /// In its own code.
    pub(super) user: Duration,
    /// In the system's, on its behalf.
    pub(super) system: Duration,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: u64,
    /// The most that was resident.
    pub(super) peak: u64,
}

impl Server {
    /// Starts `jobgate serve`, with these environment variables, one of which contains the upstream's token.
    pub(super) async fn gateway(config: &Path, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobgate"));
        command.arg("serve").arg("--config").arg(config).envs(env.iter().copied());
        Self::start(command).await
    }

    /// Starts the bare handler: this program with another option.
    pub(super) async fn bare(answer: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(answer);
        Self::start(command).await
    }

    async fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().context("a server ended at once")?;
        let mut lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let address = listening(&mut lines).await?;
        let mut log = JoinSet::new();
        log.spawn(async move {
            // Other output of a server is for the user of the benchmark.
            while let Ok(Some(line)) = lines.next_line().await {
                writeln!(std::io::stderr(), "{line}").ok();
            }
        });
        Ok(Self { address, pid, _child: child, _log: log })
    }

    /// The CPU time used until now, of all its threads, in steps of 10 ms.
    pub(super) fn cpu(&self) -> anyhow::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // after the name, which is in parentheses and may contain anything; proc(5) counts from 1, the state is 3
        let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat has no name")?;
        let ticks = |number: usize| -> anyhow::Result<Duration> {
            let field = fields.split_whitespace().nth(number - 3).context("/proc/…/stat is short")?;
            Ok(TICK * field.parse()?)
        };
        Ok(Cpu { user: ticks(14)?, system: ticks(15)? })
    }

    /// The memory in use.
    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kilobytes = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let text = line.with_context(|| format!("/proc/…/status has no {name}"))?;
            Ok(text.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
        };
        Ok(Memory { resident: kilobytes("VmRSS")?, peak: kilobytes("VmHWM")? })
    }
}

impl Cpu {
    /// The usage since an earlier moment.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both together.
    pub(super) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Prints the address of this process, in the format of the gateway's log.
pub(super) fn announce(address: SocketAddr) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{}", json!({ "message": "listening", "public": address.to_string() }))
}

async fn listening(log: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<SocketAddr> {
    let mut output = Vec::new();
    while let Some(line) = log.next_line().await? {
        if let Ok(event) = serde_json::from_str::<Value>(&line)
            && event["message"] == "listening"
            && let Some(address) = event["public"].as_str()
        {
            return Ok(address.parse()?);
        }
        output.push(line);
    }
    bail!("a server exited before it listened; its output: {}", output.join("\n"))
}
