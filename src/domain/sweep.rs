//! Sweeps: one list of what changed in place of many polls. How often a source is swept and its jobs are verified, from
//! when on a list is requested, and for how long sweeps that missed a change are not trusted. Pure: time is an argument.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::id::ExternalId;
use super::pace::PollIntervals;

const HOUR: Duration = Duration::from_hours(1);
/// How far each list reaches back before the watermark: a change may appear in the list later than its own time says.
pub const OVERLAP: Duration = Duration::from_mins(1);
/// How far the first list of a source reaches back.
pub const FIRST_WINDOW: Duration = Duration::from_mins(10);
/// Without a caller that requires more, sweeps use at most this part of the hourly calls.
const SWEEP_SHARE: u32 = 4;
/// For a caller's `maxStaleness`, sweeps use at most this part of the hourly calls.
const EAGER_SHARE: u32 = 2;
/// While less than this part of the hourly calls is used, sweeps are not limited to their share.
const UNUSED_SHARE: u32 = 8;
/// Verification uses at most this part of the hourly calls.
const VERIFY_SHARE: u32 = 10;
/// The maximum share by which the phase of a job shortens its verification interval.
const VERIFY_PHASE: f64 = 0.2;
/// Reads of watched jobs for what a list does not contain, such as their progress, use at most this part of the hourly
/// calls.
const DETAIL_SHARE: u32 = 5;
/// How long sweeps that missed a change are not used: the first time, and at most.
const DISTRUST: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(4));
/// After this time without a missed change, the next one counts as the first.
const PROBATION: Duration = Duration::from_hours(24);

/// What is remembered of the sweeps of a source over restarts, and shared by replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepRecord {
    /// The latest change that a list contained, by the upstream's clock.
    pub watermark: Option<Timestamp>,
    /// The number of completed sweeps.
    pub rounds: u64,
    /// When the last sweep was completed, by the time of day.
    pub swept_at: Option<Timestamp>,
    /// Since when sweeps are not trusted, and until when, by the time of day.
    pub distrusted: Option<(Timestamp, Timestamp)>,
    /// How often in a row a change was missed.
    pub misses: u32,
    /// The jobs of the last list, by [`id_hash`], where lists contain the jobs that are not terminal.
    pub unfinished: Vec<u64>,
    /// How far the first list reached back that discovered jobs; zero if the last one did not discover jobs.
    pub reached: Duration,
}

/// What the followed jobs of a source require of its sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SweepDemand {
    /// The followed jobs that are not terminal.
    pub jobs: usize,
    /// Those of them that are watched.
    pub watched: usize,
    /// The requests per second that polls of these jobs would need.
    pub requests_per_second: f64,
    /// The lowest staleness that a watcher allows.
    pub tightest: Option<Duration>,
    /// The jobs that this process reads by id to verify them: without those that another replica read last.
    pub verified: usize,
}

/// Which jobs are discovered that no client requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoveryRules {
    /// How far the first list reaches back.
    pub since: Duration,
    /// The maximum number of discovered jobs.
    pub max_jobs: usize,
}

/// The hourly calls of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourlyCalls {
    /// The limit.
    pub per_hour: u32,
    /// The calls that are left.
    pub left: u32,
}

impl SweepRecord {
    /// The time from which on the next list is requested, if a list was completed before, and reached back far enough for
    /// what is discovered now.
    pub fn since(&self, discovery: Option<DiscoveryRules>) -> Option<Timestamp> {
        let reached = discovery.is_none_or(|rules| rules.since <= self.reached);
        Some(earlier(self.watermark.filter(|_| reached)?, OVERLAP))
    }

    /// Applies a completed list, requested from `since` on: `latest` is the latest change in it, `upstream_now` the
    /// upstream's own time of day.
    ///
    /// The watermark follows the times in the list and no other clock. A time from the future does not move it, or
    /// changes that are made until then would not be listed.
    pub fn complete(
        &mut self,
        since: Timestamp,
        latest: Option<Timestamp>,
        upstream_now: Timestamp,
        time_of_day: Timestamp,
    ) {
        let latest = latest.map(|latest| latest.min(upstream_now));
        self.watermark = [self.watermark, latest].into_iter().flatten().max().or(Some(since));
        self.rounds = self.rounds.wrapping_add(1);
        self.swept_at = Some(time_of_day);
    }

    /// Applies a complete list of the jobs that are not terminal, by the hashes of their ids.
    pub fn complete_unfinished(&mut self, mut unfinished: Vec<u64>, time_of_day: Timestamp) {
        unfinished.sort_unstable();
        self.unfinished = unfinished;
        self.rounds = self.rounds.wrapping_add(1);
        self.swept_at = Some(time_of_day);
    }

    /// Whether sweeps are trusted at this time of day. A time from before the distrust is of a clock that stepped back.
    pub fn is_trusted(&self, time_of_day: Timestamp) -> bool {
        self.distrusted.is_none_or(|(since, until)| time_of_day >= until || time_of_day < since)
    }

    /// Applies that a sweep missed a change. Each further time in a row doubles how long sweeps are not used.
    pub fn distrust(&mut self, time_of_day: Timestamp) {
        let again =
            self.distrusted.is_some_and(|(_, until)| time_of_day.duration_since(until) < signed(PROBATION));
        self.misses = if again { self.misses.saturating_add(1) } else { 1 };
        let doubled = 1_u32.checked_shl(self.misses - 1).unwrap_or(u32::MAX);
        let off = DISTRUST.0.saturating_mul(doubled).min(DISTRUST.1);
        self.distrusted = Some((time_of_day, time_of_day.checked_add(signed(off)).unwrap_or(time_of_day)));
        // What happened in the meantime is known from polls.
        self.watermark = None;
    }
}

/// A moment before another.
pub fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(signed(by)).unwrap_or(at)
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

/// The time between two sweeps that need `calls` each.
///
/// Sweeps need no more calls than polls would, and no more than their share of the hour once calls are used up. A lower
/// `maxStaleness` of a watcher wins over both, within a larger share.
pub fn sweep_interval(pace: PollIntervals, demand: SweepDemand, calls: u32, hourly: HourlyCalls) -> Duration {
    let calls = calls.max(1);
    let (fastest, slowest) = (pace.fastest, pace.slowest.max(pace.fastest));
    let share_of = |share: u32| HOUR.saturating_mul(calls.saturating_mul(share)) / hourly.per_hour.max(1);
    let as_polls = f64::from(calls) / demand.requests_per_second.max(f64::MIN_POSITIVE);
    let as_polls = Duration::try_from_secs_f64(as_polls).unwrap_or(slowest);
    let used = u64::from(hourly.per_hour.saturating_sub(hourly.left));
    let is_unused = used * u64::from(UNUSED_SHARE) < u64::from(hourly.per_hour);
    let share = if is_unused { Duration::ZERO } else { share_of(SWEEP_SHARE) };
    let usual = as_polls.max(share).clamp(fastest, slowest);
    let eager = if is_unused { Duration::ZERO } else { share_of(EAGER_SHARE) };
    demand.tightest.map_or(usual, |tightest| usual.min(tightest.max(fastest).max(eager)))
}

/// The time between two reads of each watched job for what a list does not contain.
pub fn detail_interval(pace: PollIntervals, watched: usize, ids_a_request: usize, per_hour: u32) -> Duration {
    reads_within(DETAIL_SHARE, watched, ids_a_request, per_hour).max(pace.slowest)
}

/// A hash of an id, the same in every process and version.
pub fn id_hash(id: &ExternalId) -> u64 {
    // FNV-1a
    id.as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The longest time between two reads of each job by its id: as configured, or as long as keeps these reads within their
/// share of the hour, although the phases of jobs shorten it.
pub fn verify_interval(configured: Duration, jobs: usize, ids_a_request: usize, per_hour: u32) -> Duration {
    let shortest = reads_within(VERIFY_SHARE, jobs, ids_a_request, per_hour);
    shortest.div_f64(1.0 - VERIFY_PHASE).max(configured)
}

/// The time from one read of a job by its id to the next: shorter by the phase of the job, from 0 to 1, so that the reads
/// are spread.
pub fn verify_after(interval: Duration, phase: f64) -> Duration {
    interval.mul_f64(1.0 - VERIFY_PHASE * phase.clamp(0.0, 1.0))
}

/// The time between two reads of each of so many jobs that use this part of the hourly calls.
fn reads_within(share: u32, jobs: usize, ids_a_request: usize, per_hour: u32) -> Duration {
    let requests = u32::try_from(jobs.div_ceil(ids_a_request.max(1))).unwrap_or(u32::MAX);
    HOUR.saturating_mul(requests.saturating_mul(share)) / per_hour.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: PollIntervals = PollIntervals { fastest: s(1), slowest: s(30) };
    const UNUSED: HourlyCalls = HourlyCalls { per_hour: 5_000, left: 5_000 };
    const STRAINED: HourlyCalls = HourlyCalls { per_hour: 5_000, left: 2_500 };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn sweep_interval_is_bounded_by_polls_budget_and_staleness() {
        let cases = [
            ("as many calls as polls", 0.05, None, 1, UNUSED, s(20)),
            ("not longer than the longest interval", 0.001, None, 1, UNUSED, s(30)),
            ("no followed job", 0.0, None, 1, UNUSED, s(30)),
            ("not shorter than the shortest interval", 100.0, None, 1, UNUSED, s(1)),
            (
                "a quarter of the hour when calls are used",
                100.0,
                None,
                1,
                STRAINED,
                Duration::from_millis(2_880),
            ),
            (
                "sweeps of two calls take twice as long",
                100.0,
                None,
                2,
                STRAINED,
                Duration::from_millis(5_760),
            ),
            ("a watcher requires more", 0.05, Some(s(5)), 1, UNUSED, s(5)),
            ("not shorter than the shortest for a watcher", 0.05, Some(s(0)), 1, UNUSED, s(1)),
            ("half of the hour for a watcher", 0.05, Some(s(0)), 1, STRAINED, Duration::from_millis(1_440)),
            ("a watcher that requires less", 100.0, Some(s(60)), 1, UNUSED, s(1)),
        ];
        for (rule, requests_per_second, tightest, calls, hourly, expected) in cases {
            let demand = SweepDemand { jobs: 1_000, requests_per_second, tightest, ..SweepDemand::default() };
            assert_eq!(sweep_interval(PACE, demand, calls, hourly), expected, "{rule}");
        }
    }

    #[test]
    fn verification_uses_at_most_a_tenth_of_the_hour() {
        let minutes = |minutes| Duration::from_mins(minutes);
        let cases = [
            (100, 100, 5_000, minutes(10)),
            (10_000, 100, 5_000, minutes(15)),
            (1_000, 1, 5_000, minutes(150)),
            (0, 1, 5_000, minutes(10)),
            (50, 1, 0, minutes(37_500)),
        ];
        for (jobs, ids, per_hour, expected) in cases {
            let interval = verify_interval(minutes(10), jobs, ids, per_hour);
            assert_eq!(interval, expected, "{jobs} of {ids}");
            let calls = f64::from(u32::try_from(jobs.div_ceil(ids)).unwrap())
                * HOUR.div_duration_f64(verify_after(interval, 1.0));
            assert!(calls <= f64::from(per_hour.max(1)) / 10.0 + 1e-6, "{calls} calls for {jobs} of {ids}");
        }
    }

    #[test]
    fn reads_for_progress_use_at_most_a_fifth_of_the_hour() {
        for (watched, expected) in [(0, 30), (8, 30), (30, 108), (1_000, 3_600)] {
            assert_eq!(detail_interval(PACE, watched, 1, 5_000), s(expected), "{watched}");
        }
    }

    #[test]
    fn hash_of_an_id_never_changes() {
        let hash = |text| id_hash(&ExternalId::parse(text).unwrap());
        assert_eq!((hash("a"), hash("foobar")), (0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8));
    }

    #[test]
    fn watermark_follows_the_times_in_the_list() {
        let mut record = SweepRecord::default();
        assert_eq!(record.since(None), None);
        record.complete(at(0), None, at(600), at(600));
        assert_eq!(record.watermark, Some(at(0)), "a list without jobs moves nothing");
        record.complete(at(0), Some(at(500)), at(601), at(601));
        assert_eq!(record.since(None), Some(at(440)));
        record.complete(at(440), Some(at(470)), at(602), at(602));
        assert_eq!(record.watermark, Some(at(500)), "it never moves back");
        record.complete(at(440), Some(at(9_999)), at(603), at(603));
        assert_eq!(record.watermark, Some(at(603)), "a time from the future is not believed");
    }

    #[test]
    fn discovery_that_reaches_back_further_than_before_begins_again() {
        let rules = |hours| Some(DiscoveryRules { since: Duration::from_hours(hours), max_jobs: 1 });
        let mut record = SweepRecord { watermark: Some(at(60)), ..SweepRecord::default() };
        assert_eq!((record.since(None), record.since(rules(1))), (Some(at(0)), None));
        record.reached = Duration::from_hours(1);
        assert_eq!((record.since(rules(1)), record.since(rules(2))), (Some(at(0)), None));
    }

    #[test]
    fn each_missed_change_doubles_the_distrust() {
        let mut record = SweepRecord::default();
        let mut now = at(0);
        assert!(record.is_trusted(now));
        for minutes in [10, 20, 40, 80, 160, 240, 240] {
            record.distrust(now);
            let until = now + SignedDuration::from_mins(minutes);
            assert!(!record.is_trusted(now) && !record.is_trusted(until - SignedDuration::from_secs(1)));
            assert!(record.is_trusted(until), "{minutes}");
            assert!(record.is_trusted(now - SignedDuration::from_secs(1)), "the clock stepped back");
            now = until;
        }
        record.distrust(now + SignedDuration::from_hours(25));
        assert_eq!(record.misses, 1, "a day without a missed change");
    }

    proptest! {
        #[test]
        fn sweep_interval_stays_within_its_bounds(
            rate in 0.0_f64..1e6, tightest in proptest::option::of(0_u64..1_000), calls in 0_u32..100, per_hour in 1_u32..100_000, left in 0_u32..100_000
        ) {
            let demand = SweepDemand { jobs: 1, requests_per_second: rate, tightest: tightest.map(s), ..SweepDemand::default() };
            let interval = sweep_interval(PACE, demand, calls, HourlyCalls { per_hour, left });
            prop_assert!(interval >= s(1) && interval <= s(30), "{interval:?}");
        }

        #[test]
        fn changes_are_listed_if_they_appear_within_the_overlap(
            gaps in proptest::collection::vec((0_i64..20, 0_i64..59, -3_i64..4), 1..60)
        ) {
            // Changes are made one after another, appear in the list up to 59 s late, and a sweep is made every 3 s.
            let mut made = 0;
            let changes: Vec<(i64, i64)> = gaps.iter().map(|(gap, late, _)| { made += gap; (made, made + late) }).collect();
            let mut record = SweepRecord::default();
            let mut seen = vec![false; changes.len()];
            for now in (0..made + 80).step_by(3) {
                let since = record.since(None).unwrap_or_else(|| at(-600));
                let mut latest = None;
                for ((own, visible), seen) in changes.iter().zip(&mut seen) {
                    if *visible <= now && at(*own) >= since {
                        *seen = true;
                        latest = latest.max(Some(at(*own)));
                    }
                }
                record.complete(since, latest, at(now), at(now));
            }
            prop_assert!(seen.iter().all(|seen| *seen), "{changes:?}");
        }
    }
}
