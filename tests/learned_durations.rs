//! Durations of jobs are learned from earlier jobs, on a paused clock: fewer polls, and no later delivery.

use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt as _;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{gateway, reference};

/// The cost of following some jobs: polls per job, and the delay of the terminal state, on average and at the 95th
/// percentile.
#[derive(Clone, Copy, Debug)]
struct Cost {
    polls: f64,
    late: f64,
    late_95: f64,
}

impl Cost {
    fn of(polls: usize, mut late: Vec<f64>) -> Self {
        late.sort_by(f64::total_cmp);
        let count = f64::from(u32::try_from(late.len()).unwrap());
        let polls = f64::from(u32::try_from(polls).unwrap()) / count;
        Self { polls, late: late.iter().sum::<f64>() / count, late_95: late[late.len() * 95 / 100] }
    }
}

/// Follows jobs of one kind, one after the other, each until it completes.
async fn follow(durations: Vec<Duration>) -> Vec<(usize, f64)> {
    let gateway = gateway();
    let stop = CancellationToken::new();
    gateway.jobs.start_following(stop.clone());
    let mut costs = Vec::new();
    for (number, lasts) in durations.into_iter().enumerate() {
        let (began, before) = (Instant::now(), gateway.mindbridge.calls());
        gateway
            .mindbridge
            .respond_with(move |_| Ok(if began.elapsed() < lasts { Life::Running } else { Life::Succeeded }));
        gateway.mindbridge.takes(Duration::from_millis(1));
        let refs = vec![reference("mind", &format!("j{number}"))];
        let updates = gateway.jobs.watch(Principal::local(), refs, None).collect::<Vec<_>>().await;
        assert!(updates.last().unwrap().is_final);
        let late = began.elapsed().saturating_sub(lasts);
        costs.push((gateway.mindbridge.calls() - before, late.as_secs_f64()));
    }
    stop.cancel();
    costs
}

/// Compares the first jobs, without statistics, with the later ones.
async fn compare(lasts: impl Fn(&mut Rng) -> f64) -> (Cost, Cost) {
    let mut rng = Rng::with_seed(7);
    let durations: Vec<Duration> = (0..160).map(|_| Duration::from_secs_f64(lasts(&mut rng))).collect();
    let cost = |costs: &[(usize, f64)]| {
        Cost::of(costs.iter().map(|(polls, _)| polls).sum(), costs.iter().map(|(_, late)| *late).collect())
    };
    // Each of them by a new gateway, so that both follow the same jobs.
    let mut unlearned = Vec::new();
    for some in durations[40..].chunks(5) {
        unlearned.extend(follow(some.to_vec()).await);
    }
    let learned = follow(durations).await;
    (cost(&unlearned), cost(&learned[40..]))
}

/// A log-normal time around the middle: the deviation is a sum of dice.
fn around(rng: &mut Rng, middle: f64, spread: f64) -> f64 {
    let dice: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    middle * (spread * dice).exp()
}

#[tokio::test(start_paused = true)]
#[expect(clippy::print_stdout, reason = "docs/store.md contains these figures")]
async fn learned_durations_save_polls_without_delaying_delivery() {
    type Lasts = fn(&mut Rng) -> f64;
    let kinds: [(&str, Lasts, f64); 4] = [
        ("20 s", |rng| around(rng, 20.0, 0.2), 0.6),
        ("5 min", |rng| around(rng, 300.0, 0.1), 0.5),
        ("5 min, more or less", |rng| around(rng, 300.0, 0.4), 0.5),
        ("5 s or 7 min", |rng| if rng.bool() { around(rng, 5.0, 0.3) } else { around(rng, 420.0, 0.2) }, 0.7),
    ];
    for (name, lasts, share) in kinds {
        let (unlearned, learned) = compare(lasts).await;
        println!("{name}: {unlearned:?} before, {learned:?} after");
        assert!(learned.polls <= unlearned.polls * share, "{name}: {unlearned:?} {learned:?}");
        assert!(learned.late <= unlearned.late, "{name}: {unlearned:?} {learned:?}");
        assert!(learned.late_95 <= unlearned.late_95 * 1.05, "{name}: {unlearned:?} {learned:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn learned_durations_do_not_delay_a_max_staleness_watcher() {
    let gateway = gateway();
    let stop = CancellationToken::new();
    gateway.jobs.start_following(stop.clone());
    for number in 0..20 {
        let began = Instant::now();
        // The last completes long before all others did.
        let lasts = Duration::from_secs(if number < 19 { 600 } else { 40 });
        gateway
            .mindbridge
            .respond_with(move |_| Ok(if began.elapsed() < lasts { Life::Running } else { Life::Succeeded }));
        let refs = vec![reference("mind", &format!("j{number}"))];
        let fresh = Some(Duration::from_secs(2));
        gateway.jobs.watch(Principal::local(), refs, fresh).collect::<Vec<_>>().await;
        let late = began.elapsed().saturating_sub(lasts);
        assert!(late < Duration::from_secs(3), "{late:?}");
    }
    stop.cancel();
}
