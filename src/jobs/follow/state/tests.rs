//! Random histories: what is counted and ordered as jobs change is what the jobs contain.

use std::collections::HashSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::domain::details::{Details, MindBridgeDetails};
use crate::domain::id::ExternalId;
use crate::domain::job::{Job, Life};
use crate::domain::pace::PollIntervals;
use crate::domain::sweep::{SweepDemand, id_hash};
use crate::jobs::follow::coverage::SweepCoverage;
use crate::jobs::follow::poll_queue::{PollMarks, PollQueue};
use crate::jobs::follow::source_demand::{JobDemand, SourceDemand};
use crate::jobs::follow::source_polls::PollCapacity;
use crate::ports::upstream::Detail;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const SETTINGS: FollowSettings = FollowSettings {
    pace: PollIntervals { fastest: s(1), slowest: s(30) },
    unsubscribe_grace: s(5),
    missing_for: s(40),
    unknown_for: s(60),
    at_most: s(300),
    verify_interval: s(120),
};

fn source() -> SourceName {
    SourceName::parse("source").unwrap()
}

fn key(number: usize) -> JobKey {
    JobKey { source: source(), external_id: ExternalId::parse(&format!("job-{number}")).unwrap() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn observation(key: &JobKey, life: Life, now: Timestamp) -> Observation {
    let job = Job::new(key.clone(), life, Details::from(MindBridgeDetails::default()));
    Observation::new(Arc::new(job), now, now)
}

/// What happens to one of the jobs.
#[derive(Clone, Debug)]
enum Event {
    Watches(u32, Option<u64>, bool),
    Leaves,
    Resumes,
    Answers(Life),
    AnswersOther(Life),
    IsListed(Life),
    IsCached(Life),
    Fails(bool),
    EndsPoll,
    Lists(bool),
    Reads,
    Verifies,
    Proves,
    Polls { jobs: usize, spaced: bool, broken: bool },
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let life = || prop_oneof![4 => Just(Life::Running), 1 => Just(Life::Succeeded)];
    prop_oneof![
        6 => (0_u32..4, proptest::option::of(0_u64..9), any::<bool>())
            .prop_map(|(client, limit, watches)| Event::Watches(client, limit, watches)),
        4 => Just(Event::Leaves),
        1 => Just(Event::Resumes),
        6 => life().prop_map(Event::Answers),
        2 => life().prop_map(Event::AnswersOther),
        2 => life().prop_map(Event::IsListed),
        1 => life().prop_map(Event::IsCached),
        4 => any::<bool>().prop_map(Event::Fails),
        3 => Just(Event::EndsPoll),
        2 => any::<bool>().prop_map(Event::Lists),
        2 => Just(Event::Reads),
        2 => Just(Event::Verifies),
        1 => Just(Event::Proves),
        8 => (0_usize..5, any::<bool>(), any::<bool>())
            .prop_map(|(jobs, spaced, broken)| Event::Polls { jobs, spaced, broken }),
        6 => (0_u64..20).prop_map(Event::Passes),
    ]
}

/// The followed jobs, and the numbers of the interests in each.
#[derive(Default)]
struct FollowHistory {
    jobs: FollowedJobs,
    interests: Vec<(JobKey, u64)>,
    answers: i64,
}

impl FollowHistory {
    async fn apply(&mut self, event: Event, key: JobKey) {
        let now = Instant::now();
        self.answers += 1;
        let seen = |life| observation(&key, life, at(self.answers));
        match event {
            Event::Watches(client, limit, watches) => {
                let client: Arc<str> = client.to_string().into();
                let registered = self.jobs.change(&key, &SETTINGS, |jobs| {
                    jobs.register(&key, client, limit.map(s), watches, &SETTINGS)
                });
                self.interests.push((key, registered.number));
            }
            Event::Leaves => {
                if let Some((key, number)) = self.interests.pop() {
                    self.jobs.change(&key, &SETTINGS, |jobs| jobs.unregister(&key, number));
                }
            }
            Event::Resumes => {
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.resume(&key, None, &SETTINGS));
            }
            Event::Answers(life) => {
                let seen = seen(life);
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.apply_fetch(&key, Ok(&seen), &SETTINGS));
            }
            Event::AnswersOther(life) => {
                let seen = seen(life);
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.apply_remote(&seen, &SETTINGS));
            }
            Event::IsListed(life) => {
                let seen = seen(life);
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.apply_listed(&seen, &SETTINGS));
            }
            Event::IsCached(life) => {
                let seen = seen(life);
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.offer_cached(&seen, &SETTINGS));
            }
            Event::Fails(missing) => {
                let error = if missing { FetchError::NotFound } else { FetchError::TimedOut };
                let error = LookupError::Fetch(error);
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.apply_fetch(&key, Err(error), &SETTINGS));
            }
            Event::EndsPoll => {
                self.jobs.change(&key, &SETTINGS, |jobs| jobs.clear_in_flight(&key, &SETTINGS));
            }
            Event::Lists(contains) => self.list(&key, contains, now),
            Event::Reads => self.jobs.schedule.schedule_read(&key, now),
            Event::Verifies => self.jobs.schedule.verify(&key, true, &SETTINGS),
            Event::Proves => self.jobs.proved(&source(), &SETTINGS),
            Event::Polls { jobs, spaced, broken } => self.poll(jobs, spaced, broken, now),
            Event::Passes(seconds) => tokio::time::advance(s(seconds)).await,
        }
    }

    fn fails(&mut self, key: &JobKey) {
        let error = LookupError::Fetch(FetchError::BadAnswer(Detail::new("planted")));
        self.jobs.change(key, &SETTINGS, |jobs| jobs.apply_fetch(key, Err(error), &SETTINGS));
    }

    fn list(&mut self, key: &JobKey, contains: bool, now: Instant) {
        let listed: HashSet<u64> = contains.then(|| id_hash(&key.external_id)).into_iter().collect();
        let coverage = SweepCoverage {
            since: now,
            interval: s(2),
            verify_interval: s(120),
            swept: (now, at(self.answers)),
            detail_interval: Some(s(30)),
        };
        let schedule = &mut self.jobs.schedule;
        schedule.set_coverage(&source(), Some(coverage), Some(&listed), &SETTINGS);
        if !contains {
            schedule.set_coverage(&source(), None, None, &SETTINGS);
        }
    }

    fn poll(&mut self, jobs: usize, spaced: bool, broken: bool, now: Instant) {
        let room = PollCapacity {
            jobs,
            urgent: 2,
            a_request: 2,
            spacing: if spaced { s(1) } else { Duration::ZERO },
            opens: None,
            broken_for: broken.then_some(Duration::ZERO),
            recovered: !broken,
        };
        let schedule = &mut self.jobs.schedule;
        schedule.forget_idle(now, &SETTINGS);
        assert!(schedule.next_forgotten(&SETTINGS).is_none_or(|next| next > now), "the loop would spin");
        schedule.apply_capacity(&source(), &room, now, &SETTINGS);
        let chosen = schedule.choose(&source(), &room, now, &SETTINGS);
        let distinct: HashSet<&JobKey> = chosen.iter().collect();
        assert_eq!(distinct.len(), chosen.len(), "no job is polled twice at once");
        assert!(chosen.len() <= jobs.max(room.urgent), "{chosen:?} for {room:?}");
    }

    /// Everything that is counted or ordered as jobs change is what the jobs contain.
    fn check(&mut self) {
        let now = Instant::now();
        let schedule = &self.jobs.schedule;
        let mut total = SourceDemand::default();
        for followed in schedule.jobs.values() {
            let expected = followed.sweep_demand(&SETTINGS, now).with_rate_of(followed.demand);
            assert_eq!(followed.demand, expected);
            assert!(!followed.is_over() || followed.scheduled_at.is_none(), "it needs no poll");
            total.replace(JobDemand::default(), followed.demand);
        }
        let queue = schedule.queues.get(&source());
        let scheduled = schedule.jobs.iter().filter_map(|(key, followed)| {
            Some(((followed.scheduled_at?, followed.number), key.clone(), followed.marks()))
        });
        let mut scheduled: Vec<_> = scheduled.collect();
        let polls = schedule.polls.get(&source());
        let reads = polls.into_iter().flat_map(|polls| &polls.reads);
        scheduled.extend(reads.map(|(key, position)| (*position, key.clone(), PollMarks::default())));
        scheduled.sort_by_key(|(position, _, _)| *position);
        assert_eq!(queue.map(PollQueue::entries).unwrap_or_default(), scheduled);
        schedule.check_idle();
        assert_eq!(polls.map_or_else(SweepDemand::default, |polls| polls.demand.read(2)), total.read(2));
        self.check_rates(now);
    }

    /// The rates of scheduled jobs are counted again.
    fn check_rates(&mut self, now: Instant) {
        self.jobs.schedule.sweep_demand(&source(), &SETTINGS, 2);
        for followed in self.jobs.schedule.jobs.values().filter(|followed| followed.scheduled_at.is_some()) {
            assert_eq!(followed.demand, followed.sweep_demand(&SETTINGS, now));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_reads_neither_count_as_polls_nor_move_the_next_one() {
    let (mut history, key) = (FollowHistory::default(), key(0));
    history.apply(Event::Watches(0, None, true), key.clone()).await;
    history.apply(Event::Answers(Life::Running), key.clone()).await;
    let state = |history: &FollowHistory| {
        let followed = history.jobs.schedule.jobs.get(&key).unwrap();
        (followed.failures, followed.scheduled_at.unwrap())
    };
    for polls in 0..6 {
        let (failures, due) = state(&history);
        assert_eq!(failures, polls);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_millis(100)).await;
            history.fails(&key);
            assert_eq!(state(&history), (failures, due));
        }
        tokio::time::sleep_until(due).await;
        history.poll(1, false, false, due);
        history.fails(&key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn order_and_demand_are_those_of_the_jobs(
        events in proptest::collection::vec((event(), 0_usize..5), 1..60)
    ) {
        let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        paused.unwrap().block_on(async {
            let mut history = FollowHistory::default();
            for (event, job) in events {
                history.apply(event, key(job)).await;
                history.check();
            }
        });
    }
}
