//! Durations of jobs are learned from earlier jobs, on a paused clock: fewer polls, and no later delivery.

use std::time::Duration;

use fastrand::Rng;
use futures_util::stream::{BoxStream, StreamExt as _};
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::jobs::JobEstimate;
use jobgate::jobs::watch::WatchUpdate;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{TestGateway, gateway, reference};

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

/// A gateway that has followed this many jobs, of a minute each, and now follows one that does not finish.
async fn after_jobs_of_a_minute(count: usize) -> (TestGateway, BoxStream<'static, WatchUpdate>) {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    for number in 0..=count {
        let began = Instant::now();
        let lasts = Duration::from_secs(if number < count { 60 } else { 1_000 });
        gateway
            .mindbridge
            .respond_with(move |_| Ok(if began.elapsed() < lasts { Life::Running } else { Life::Succeeded }));
        gateway.mindbridge.takes(Duration::from_millis(1));
        let refs = vec![reference("mind", &format!("j{number}"))];
        let updates = gateway.jobs.watch(Principal::local(), refs, None).boxed();
        if number == count {
            return (gateway, updates);
        }
        updates.collect::<Vec<_>>().await;
    }
    unreachable!("the last job is returned")
}

/// The estimate of the running job, with the time left in seconds.
async fn estimate(gateway: &TestGateway, id: &str) -> Option<(i64, JobEstimate)> {
    let seen = gateway.jobs.lookup_one(&Principal::local(), reference("mind", id), None).await.unwrap();
    let now = seen.observed_at + seen.age;
    let estimate = gateway.jobs.estimate(&seen)?;
    assert!(now <= estimate.earliest && estimate.earliest <= estimate.expected_finish_at);
    assert!(estimate.expected_finish_at <= estimate.latest);
    Some((estimate.expected_finish_at.duration_since(now).as_secs(), estimate))
}

#[tokio::test(start_paused = true)]
async fn an_estimate_is_conditional_on_the_time_taken() {
    let (gateway, mut updates) = after_jobs_of_a_minute(20).await;
    updates.next().await.unwrap();
    let (left, at_first) = estimate(&gateway, "j20").await.unwrap();
    assert!((55..=65).contains(&left) && at_first.sample_size == 20, "{left} {at_first:?}");
    tokio::time::sleep(Duration::from_secs(40)).await;
    let (left, later) = estimate(&gateway, "j20").await.unwrap();
    assert!((15..=25).contains(&left) && later.sample_size == 20, "{left} {later:?}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(estimate(&gateway, "j20").await, None, "no job has taken as long");
    assert_eq!(estimate(&gateway, "j7").await, None, "a completed job has no estimate");
}

#[tokio::test(start_paused = true)]
async fn fewer_than_eight_completed_jobs_give_no_estimate() {
    let (gateway, mut updates) = after_jobs_of_a_minute(7).await;
    updates.next().await.unwrap();
    assert_eq!(estimate(&gateway, "j7").await, None);
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
