//! Prints the measurements as a table: a row per server and, below each pair, the cost of the gateway relative to the
//! bare handler.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use super::cases::Case;
use super::client::Load;
use super::plan::Plan;
use super::servers::{Cpu, Memory};

/// Everything measured of one server in one case, over all its rounds.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Time under load.
    pub(super) elapsed: Duration,
    /// Of each request, in microseconds.
    pub(super) latencies: Vec<u32>,
    /// CPU time used in that time.
    pub(super) cpu: Cpu,
    /// Memory at the end.
    pub(super) memory: Memory,
}

/// One row of figures. The same shape holds values, and ratios of two rows.
struct Row {
    per_second: f64,
    cpu: f64,
    user: f64,
    p50: f64,
    p99: f64,
    resident: f64,
    peak: f64,
}

/// The report of a run.
#[derive(Debug)]
pub(super) struct Report(String);

impl Report {
    /// An empty report.
    pub(super) fn new(plan: &Plan) -> Self {
        let Plan { seconds, rounds, connections, .. } = plan;
        Self(format!(
            "{connections} connections, {rounds} rounds of {seconds} s each, the two servers in turn\n\n\
             | case | server | requests/s | CPU µs/request | of it user | p50 ms | p99 ms | resident MiB | peak MiB |\n\
             |---|---|--:|--:|--:|--:|--:|--:|--:|\n"
        ))
    }

    /// Prints a round as soon as it is over.
    pub(super) fn round(case: &str, server: &str, load: &Load, cpu: Cpu) -> io::Result<()> {
        let requests = count(&load.latencies);
        writeln!(
            io::stderr(),
            "{case:<12} {server:<8} {:>9.0} requests/s {:>9.1} µs CPU a request",
            requests / load.elapsed.as_secs_f64(),
            cpu.total().as_secs_f64() * 1e6 / requests
        )
    }

    /// Adds the three rows of a case.
    pub(super) fn case(
        &mut self,
        case: &Case,
        (request, answer): (usize, usize),
        gateway: Figures,
        bare: Figures,
    ) {
        let (gateway, bare) = (Row::of(gateway), Row::of(bare));
        let label = format!("`{}` ({request} B in, {answer} B out)", case.name);
        self.row(&label, "gateway", &gateway, "");
        self.row("", "bare handler", &bare, "");
        self.row("", "ratio", &gateway.over(&bare), " ×");
    }

    /// Adds the rows of a case by mode: what each costs over the first.
    pub(super) fn modes(
        &mut self,
        case: &Case,
        (request, answer): (usize, usize),
        modes: Vec<(&str, Figures)>,
    ) {
        let mut label = format!("`{}` ({request} B in, {answer} B out)", case.name);
        let mut first: Option<Row> = None;
        for (name, figures) in modes {
            let row = Row::of(figures);
            self.row(&std::mem::take(&mut label), &format!("tracing {name}"), &row, "");
            match &first {
                None => first = Some(row),
                Some(off) => self.row("", &format!("tracing {name}, ratio"), &row.over(off), " ×"),
            }
        }
    }

    /// Prints the table.
    pub(super) fn print(self) -> anyhow::Result<()> {
        Ok(write!(io::stdout(), "{}", self.0)?)
    }

    fn row(&mut self, case: &str, server: &str, row: &Row, unit: &str) {
        let Row { per_second, cpu, user, p50, p99, resident, peak } = row;
        let whole = if unit.is_empty() { 0 } else { 2 };
        // Writing to a text cannot fail.
        writeln!(
            self.0,
            "| {case} | {server} | {per_second:.whole$}{unit} | {cpu:.1}{unit} | {user:.1}{unit} | {p50:.2}{unit} | \
             {p99:.2}{unit} | {resident:.1}{unit} | {peak:.1}{unit} |"
        )
        .ok();
    }
}

impl Row {
    fn of(mut figures: Figures) -> Self {
        figures.latencies.sort_unstable();
        let requests = count(&figures.latencies);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        let quantile = |percent: usize| {
            let at = (figures.latencies.len() * percent / 100).min(figures.latencies.len().saturating_sub(1));
            figures.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
        };
        Self {
            per_second: requests / figures.elapsed.as_secs_f64(),
            cpu: micros(figures.cpu.total()),
            user: micros(figures.cpu.user),
            p50: quantile(50),
            p99: quantile(99),
            resident: mebibytes(figures.memory.resident),
            peak: mebibytes(figures.memory.peak),
        }
    }

    fn over(&self, other: &Self) -> Self {
        Self {
            per_second: self.per_second / other.per_second,
            cpu: self.cpu / other.cpu,
            user: self.user / other.user,
            p50: self.p50 / other.p50,
            p99: self.p99 / other.p99,
            resident: self.resident / other.resident,
            peak: self.peak / other.peak,
        }
    }
}

fn count(latencies: &[u32]) -> f64 {
    f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX))
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}
