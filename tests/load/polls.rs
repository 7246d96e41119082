//! How the gateway follows jobs, replayed over log-normal durations beside fixed intervals and the schedule of the
//! Supermetrics client: the poll schedule of one job alone, and batches of jobs with sweeps, budget, verification and reads
//! of progress. No upstream is called and nothing waits; the same seed gives the same tables. `cargo bench --bench polls`.
#![expect(dead_code, reason = "shared with the integration tests; this program needs a part of it")]
#![expect(clippy::unwrap_used, reason = "a tool that cannot continue panics")]

#[path = "../support"]
mod support {
    pub(crate) mod ports;
    pub(crate) mod replay;
}

use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use jobgate::domain::durations::Durations;
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::upstream::Upstream;
use support::replay::fixed::{self, Polled, supermetrics_client};
use support::replay::{DURATIONS, Followed, JobRun, LagQuantiles, follow_each};

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// How many jobs of each kind
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// How many completed jobs of its kind the schedule has learned from
    #[arg(long, default_value_t = 256)]
    learned: usize,
    /// The seed of the durations
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// `poll.min_interval` of the schedule alone, in seconds
    #[arg(long, default_value_t = 1)]
    min_interval: u64,
    /// `poll.max_interval` of the schedule alone, in seconds
    #[arg(long, default_value_t = 30)]
    max_interval: u64,
    /// The jobs of a batch
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000])]
    batch: Vec<usize>,
    /// Over how many minutes the jobs of a batch start
    #[arg(long, default_value_t = 10)]
    over: u64,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// Small batches are repeated, with other durations, up to so many jobs.
const BATCHED: usize = 1_000;

/// What a schedule costs: the polls of each job after its first read, and the seconds from its end to the poll that
/// detects it.
struct Replay {
    polls: f64,
    lags: LagQuantiles,
}

/// Replays a schedule: the time to the next poll, by the age of a job in seconds and by its phase.
fn replay(durations: &[f64], phases: &mut fastrand::Rng, interval: impl Fn(f64, f64) -> f64) -> Replay {
    let (mut polls, mut jobs) = (0.0, 0.0);
    let mut lags = Vec::with_capacity(durations.len());
    for lasted in durations {
        let phase = phases.f64();
        let mut age = 0.0;
        while age < *lasted {
            age += interval(age, phase);
            polls += 1.0;
        }
        lags.push(age - lasted);
        jobs += 1.0;
    }
    Replay { polls: polls / jobs, lags: LagQuantiles::of(lags) }
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    single_jobs(&arguments)?;
    writeln!(std::io::stdout())?;
    batches(&arguments)
}

/// The poll schedule of one job alone.
fn single_jobs(arguments: &Arguments) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let seconds = Duration::from_secs;
    let pace =
        PollIntervals { fastest: seconds(arguments.min_interval), slowest: seconds(arguments.max_interval) };
    writeln!(out, "| durations | schedule | polls a job | median lag, s | p90 lag, s |")?;
    writeln!(out, "|---|---|--:|--:|--:|")?;
    for kind in &DURATIONS {
        let mut rng = fastrand::Rng::with_seed(arguments.seed);
        let mut learned = Durations::default();
        for _ in 0..arguments.learned {
            learned.record(Duration::from_secs_f64(kind.draw(&mut rng)));
        }
        let durations: Vec<f64> = (0..arguments.jobs).map(|_| kind.draw(&mut rng)).collect();
        let mut row = |schedule: &str, Replay { polls, lags: LagQuantiles { median, p90 } }: &Replay| {
            writeln!(out, "| {} | {schedule} | {polls:.1} | {median:.1} | {p90:.1} |", kind.name)
        };
        let mut phases = rng;
        let jobgate = |learned: Option<&Durations>, age: f64, phase: f64| {
            pace.interval(Duration::from_secs_f64(age), learned, None, 0, phase).as_secs_f64()
        };
        let own = replay(&durations, &mut phases, |age, phase| jobgate(Some(&learned), age, phase));
        row("jobgate, durations learned", &own)?;
        let unlearned = replay(&durations, &mut phases, |age, phase| jobgate(None, age, phase));
        row("jobgate, nothing learned", &unlearned)?;
        let client = |age: f64, _| supermetrics_client(age);
        row("Supermetrics client", &replay(&durations, &mut phases, client))?;
        for fixed in [1.0, 5.0, 15.0, 60.0] {
            row(&format!("every {fixed} s"), &replay(&durations, &mut phases, |_, _| fixed))?;
        }
        // a fixed interval is late by half of it in the median
        let equal = 2.0 * own.lags.median;
        let equally_late = replay(&durations, &mut phases, |_, _| equal);
        let share = 100.0 * own.polls / equally_late.polls;
        row(
            &format!("every {equal:.1} s, as late as jobgate, which takes {share:.0} % of its polls"),
            &equally_late,
        )?;
    }
    Ok(())
}

/// Batches of jobs, followed by the use cases of the gateway with the default settings and budget.
fn batches(arguments: &Arguments) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let over = Duration::from_mins(arguments.over);
    writeln!(
        out,
        "Batches, started over {over:?}. All calls are a job; each schedule also makes one first read a job."
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "| upstream | jobs | durations | schedule | lists | polls | reads of ends | sum | verification, progress | median lag, s | p90 lag, s | share of the fixed interval | share with verification, progress |"
    )?;
    writeln!(out, "|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    for (upstream, name) in [(Upstream::Supermetrics, "Supermetrics"), (Upstream::MindBridge, "MindBridge")] {
        let ids = upstream.profile().ids_a_request;
        for jobs in &arguments.batch {
            for kind in &DURATIONS {
                let mut rng = fastrand::Rng::with_seed(arguments.seed);
                let repeats = (BATCHED / jobs).max(1);
                let batches: Vec<Vec<JobRun>> =
                    (0..repeats).map(|_| kind.batch(*jobs, over, &mut rng)).collect();
                let count = f64::from(u32::try_from(jobs * repeats).unwrap());
                let a_job = |calls: usize| f64::from(u32::try_from(calls).unwrap()) / count;
                let head = format!("| {name} | {jobs} | {}", kind.name);
                let Followed { calls, lags } = follow_each(upstream, &batches);
                let fixed = fixed::longest(&batches, lags.median, ids);
                let share = |calls: usize| {
                    let polled = fixed.map(|(_, polled)| a_job(polled.calls));
                    polled.map_or_else(
                        || "–".to_owned(),
                        |fixed| format!("{:.0} %", 100.0 * a_job(calls) / fixed),
                    )
                };
                writeln!(
                    out,
                    "{head} | jobgate | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {} | {} |",
                    a_job(calls.lists),
                    a_job(calls.polls),
                    a_job(calls.ends),
                    a_job(calls.detecting()),
                    a_job(calls.confirmations),
                    lags.median,
                    lags.p90,
                    share(calls.detecting()),
                    share(calls.detecting() + calls.confirmations),
                )?;
                let mut row = |schedule: &str, Polled { calls, lags }: Polled| {
                    let calls = a_job(calls);
                    let LagQuantiles { median, p90 } = lags;
                    writeln!(
                        out,
                        "{head} | {schedule} | | {calls:.2} | | {calls:.2} | | {median:.1} | {p90:.1} | | |"
                    )
                };
                if let Some((interval, polled)) = fixed {
                    row(&format!("every {interval:.1} s"), polled)?;
                }
                if upstream == Upstream::Supermetrics {
                    row("Supermetrics client", fixed::one_by_one(&batches, supermetrics_client))?;
                }
            }
        }
    }
    Ok(())
}
