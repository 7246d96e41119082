//! The poll schedule replayed over log-normal durations, beside fixed intervals and the schedule of the Supermetrics
//! client: calls of each job, and how late its end is detected. Nothing is called and nothing waits; the same seed
//! gives the same table. `cargo bench --bench polls`.

use std::io::Write as _;
use std::time::Duration;

use clap::Parser as _;
use jobgate::domain::durations::Durations;
use jobgate::domain::pace::PollIntervals;

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
    /// `poll.min_interval` in seconds
    #[arg(long, default_value_t = 1)]
    min_interval: u64,
    /// `poll.max_interval` in seconds
    #[arg(long, default_value_t = 30)]
    max_interval: u64,
    /// Passed by cargo; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// The shortest and the longest duration, in seconds.
const BOUNDS: (f64, f64) = (1.0, 4.0 * 3_600.0);

/// A kind of jobs, whose durations are log-normal.
struct Kind {
    name: &'static str,
    /// In seconds.
    median: f64,
    /// The standard deviation of the logarithm.
    sigma: f64,
}

const KINDS: [Kind; 5] = [
    Kind { name: "1 s to 4 h, median 2 min", median: 120.0, sigma: 1.6 },
    Kind { name: "median 10 s", median: 10.0, sigma: 0.4 },
    Kind { name: "median 2 min", median: 120.0, sigma: 0.4 },
    Kind { name: "median 15 min", median: 900.0, sigma: 0.4 },
    Kind { name: "median 2 h", median: 7_200.0, sigma: 0.4 },
];

/// What a schedule costs: the polls of each job after its first read, and the seconds from its end to the poll that
/// detects it.
struct Replay {
    polls: f64,
    median: f64,
    p90: f64,
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
    lags.sort_by(f64::total_cmp);
    let share = |percent: usize| lags.get(lags.len() * percent / 100).copied().unwrap_or_default();
    Replay { polls: polls / jobs, median: share(50), p90: share(90) }
}

/// A log-normal duration within the bounds, in seconds (Box and Muller).
fn duration(kind: &Kind, rng: &mut fastrand::Rng) -> f64 {
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    (kind.median * (kind.sigma * normal).exp()).clamp(BOUNDS.0, BOUNDS.1)
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let arguments = Arguments::parse();
    let seconds = Duration::from_secs;
    let pace =
        PollIntervals { fastest: seconds(arguments.min_interval), slowest: seconds(arguments.max_interval) };
    writeln!(out, "| durations | schedule | polls a job | median lag, s | p90 lag, s |")?;
    writeln!(out, "|---|---|--:|--:|--:|")?;
    for kind in &KINDS {
        let mut rng = fastrand::Rng::with_seed(arguments.seed);
        let mut learned = Durations::default();
        for _ in 0..arguments.learned {
            learned.record(Duration::from_secs_f64(duration(kind, &mut rng)));
        }
        let durations: Vec<f64> = (0..arguments.jobs).map(|_| duration(kind, &mut rng)).collect();
        let mut row = |schedule: &str, Replay { polls, median, p90 }: &Replay| {
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
        let client = |age: f64, _| {
            if age < 5.0 {
                1.0
            } else if age < 20.0 {
                2.0
            } else {
                5.0
            }
        };
        row("Supermetrics client", &replay(&durations, &mut phases, client))?;
        for fixed in [1.0, 5.0, 15.0, 60.0] {
            row(&format!("every {fixed} s"), &replay(&durations, &mut phases, |_, _| fixed))?;
        }
        // a fixed interval is late by half of it in the median
        let equal = 2.0 * own.median;
        let equally_late = replay(&durations, &mut phases, |_, _| equal);
        let share = 100.0 * own.polls / equally_late.polls;
        row(
            &format!("every {equal:.1} s, as late as jobgate, which takes {share:.0} % of its polls"),
            &equally_late,
        )?;
    }
    Ok(())
}
