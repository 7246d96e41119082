//! Prints the measurements as a table: a row per server, a column per transport, and the cost of the gateway relative
//! to the bare broadcaster.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use super::plan::Plan;
use super::servers::Cpu;
use super::socket::Carrier;
use super::watchers::WatcherCounters;

/// Everything measured of one server with one transport.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) sockets: usize,
    /// Changes of every job, except for the last one.
    pub(super) changes: u64,
    /// Until every watcher had a snapshot, and the CPU time of that.
    pub(super) opening: Duration,
    pub(super) opening_cpu: Cpu,
    /// Bytes that the sockets added, when idle.
    pub(super) memory: u64,
    /// The same, after all changes.
    pub(super) after: u64,
    /// The most at any time.
    pub(super) peak: u64,
    /// The time of the changes, the CPU time in it, and the requests upstream.
    pub(super) elapsed: Duration,
    pub(super) cpu: Cpu,
    pub(super) calls: usize,
    pub(super) counters: WatcherCounters,
}

/// The report of a run.
#[derive(Debug)]
pub(super) struct Report(String);

/// One line of the table: what, and how to write it.
type Line = (&'static str, usize, fn(&Figures) -> f64);

const LINES: [Line; 15] = [
    ("memory a subscription, at rest, kB", 1, |it| bytes(it.memory) / 1e3 / it.sockets()),
    ("memory a subscription, after the changes, kB", 1, |it| bytes(it.after) / 1e3 / it.sockets()),
    ("memory a subscription, peak, kB", 1, |it| bytes(it.peak) / 1e3 / it.sockets()),
    ("to establish all, s", 2, |it| it.opening.as_secs_f64()),
    ("to establish one, p50, ms", 1, |it| quantile(&it.counters.opened, 50)),
    ("to establish one, p99, ms", 1, |it| quantile(&it.counters.opened, 99)),
    ("CPU to establish one, µs", 1, |it| it.opening_cpu.total().as_secs_f64() * 1e6 / it.sockets()),
    ("CPU a delivery, µs", 1, |it| it.cpu.total().as_secs_f64() * 1e6 / it.deliveries()),
    ("of it user, µs", 1, |it| it.cpu.user.as_secs_f64() * 1e6 / it.deliveries()),
    ("detected to delivered, p50, ms", 1, |it| quantile(&it.counters.late, 50)),
    ("detected to delivered, p99, ms", 1, |it| quantile(&it.counters.late, 99)),
    ("deliveries a second", 0, |it| it.deliveries() / it.elapsed.as_secs_f64()),
    ("lost", 0, |it| bytes(it.counters.lost)),
    ("doubled", 0, |it| bytes(it.counters.doubled)),
    ("upstream requests a second", 2, |it| bytes(it.calls as u64) / it.elapsed.as_secs_f64()),
];

impl Figures {
    /// Whether no update was lost or duplicated.
    pub(super) const fn is_clean(&self) -> bool {
        self.counters.lost == 0 && self.counters.doubled == 0
    }

    fn sockets(&self) -> f64 {
        bytes(self.sockets as u64)
    }

    fn deliveries(&self) -> f64 {
        bytes(self.changes) * self.sockets()
    }
}

impl Report {
    /// An empty report.
    pub(super) fn new(plan: &Plan) -> Self {
        let Plan { sockets, jobs, seconds, .. } = plan;
        Self(format!(
            "{sockets} subscriptions of {jobs} jobs, all of which change at once, for {seconds} s\n"
        ))
    }

    /// Adds the table of one transport.
    pub(super) fn pair(&mut self, carrier: Carrier, mut gateway: Figures, mut bare: Figures) {
        for figures in [&mut gateway, &mut bare] {
            figures.counters.late.sort_unstable();
            figures.counters.opened.sort_unstable();
        }
        // Writing to a text cannot fail.
        writeln!(
            self.0,
            "\n{carrier:?}, {} changes\n\n| | gateway | bare | ratio |\n|---|--:|--:|--:|",
            gateway.changes
        )
        .ok();
        for (name, digits, value) in LINES {
            let (ours, theirs) = (value(&gateway), value(&bare));
            let ratio = if theirs > 0.0 { format!("{:.2} ×", ours / theirs) } else { String::new() };
            writeln!(self.0, "| {name} | {ours:.digits$} | {theirs:.digits$} | {ratio} |").ok();
        }
    }

    /// Prints the tables.
    pub(super) fn print(self) -> anyhow::Result<()> {
        Ok(write!(io::stdout(), "{}", self.0)?)
    }
}

/// In milliseconds, of sorted microseconds.
fn quantile(sorted: &[u32], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
}

/// For any value below 2^53.
fn bytes(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
