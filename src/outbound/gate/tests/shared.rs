//! A gate whose budget replicas share, with a script in the place of the other replicas.

use std::collections::VecDeque;

use super::*;
use crate::domain::budget::SharedUse;
use crate::ports::BoxFuture;

/// Says what it is told to, and notes what it hears.
#[derive(Debug, Default)]
struct Script {
    says: Mutex<VecDeque<Taken>>,
    left: Option<u32>,
    used: Mutex<SharedUse>,
    reported: Mutex<Vec<(u32, u32)>>,
    given_back: Mutex<Vec<String>>,
    paused: Mutex<Vec<Duration>>,
}

impl SharedBudget for Script {
    fn take<'a>(&'a self, _: &'a Limits) -> BoxFuture<'a, Taken> {
        let said = self.says.lock().unwrap().pop_front();
        Box::pin(async move { said.unwrap() })
    }

    fn left(&self, _: &Limits) -> u32 {
        self.left.unwrap_or(7)
    }

    fn report(&self, demand: u32, callers: u32) {
        self.reported.lock().unwrap().push((demand, callers));
    }

    fn used(&self) -> SharedUse {
        self.used.lock().unwrap().clone()
    }

    fn give_back(&self, slot: String) {
        self.given_back.lock().unwrap().push(slot);
    }

    fn pause(&self, pause: Duration) {
        self.paused.lock().unwrap().push(pause);
    }
}

fn gate_that(says: impl IntoIterator<Item = Taken>) -> (Arc<Gate>, Arc<Script>) {
    gate_with(None, says)
}

fn gate_with(left: Option<u32>, says: impl IntoIterator<Item = Taken>) -> (Arc<Gate>, Arc<Script>) {
    let script = Arc::new(Script { left, ..Script::default() });
    script.says.lock().unwrap().extend(says);
    let limits =
        Limits { per_second: 6, per_hour: 600, caller_share: 20, concurrency: 100, max_wait: SECOND * 10 };
    let shared = Some(Arc::clone(&script) as Arc<dyn SharedBudget>);
    (Gate::new(SourceName::parse("s").unwrap(), limits, shared), script)
}

fn go() -> Taken {
    Taken::Go(Some("slot".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_all_replicas_and_gives_its_slot_back() {
    let (gate, script) = gate_that([Taken::Wait(SECOND), Taken::Wait(SECOND), go()]);
    let before = Instant::now();
    let permit = gate.enter(&Asker::Operator, SECOND * 10).await.unwrap();
    assert_eq!(before.elapsed(), SECOND * 2);
    assert_eq!(*script.given_back.lock().unwrap(), Vec::<String>::new());
    permit.finish(Outcome::Answered);
    assert_eq!(*script.given_back.lock().unwrap(), ["slot"]);
    assert_eq!(gate.snapshot().budget.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_one_replica_is_told_to_pause_all_do() {
    let (gate, script) = gate_that([go(), Taken::Paused(SECOND * 30)]);
    assert_eq!(once(&gate, Outcome::Throttled(SECOND * 5)).await, Ok(()));
    assert_eq!(*script.paused.lock().unwrap(), [SECOND * 5], "ours is told to the others");
    tokio::time::advance(SECOND * 5).await;
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Throttled(SECOND * 30)));
    assert_eq!(script.paused.lock().unwrap().len(), 1, "theirs is not told again");
    assert_eq!(
        once(&gate, Outcome::Answered).await,
        Err(Refusal::Throttled(SECOND * 30)),
        "without asking again"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_the_hour_is_what_all_replicas_have_left() {
    let (gate, _script) = gate_that([]);
    assert_eq!(gate.snapshot().budget.left_this_hour, 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_by_the_shared_budget_is_not_counted() {
    let refusals = (0..50).map(|_| Taken::Wait(SECOND * 60));
    let (gate, _script) = gate_with(Some(600), refusals);
    for number in 0..50 {
        let asker = if number % 2 == 0 { Asker::Operator } else { Asker::Background };
        let refused = gate.enter(&asker, SECOND * 10).await.map(drop);
        assert_eq!(refused, Err(Refusal::Throttled(SECOND * 60)));
    }
    assert_eq!(gate.snapshot().budget.left_this_hour, 600);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_its_grant_is_not_counted() {
    let (gate, _script) = gate_with(Some(600), [Taken::Wait(SECOND * 5)]);
    let entered = tokio::time::timeout(SECOND, gate.enter(&Asker::Operator, SECOND * 10)).await;
    assert!(entered.is_err(), "it still waits for the shared budget");
    assert_eq!(gate.snapshot().budget.left_this_hour, 600);
}

#[tokio::test(start_paused = true)]
async fn polls_are_paced_by_what_all_replicas_used() {
    let (gate, script) = gate_that([]);
    let need = PollDemand { calls_per_hour: 100, awaited: true };
    assert_eq!(gate.pace_polls(need), PollPacing::default(), "nothing is used");
    assert_eq!(*script.reported.lock().unwrap(), [(100, 0)], "the others learn what it needs");
    let used = |calls, others_demand| SharedUse {
        calls: vec![(SECOND * 60, calls)],
        others_demand,
        others_callers: 0,
    };
    *script.used.lock().unwrap() = used(360, 0);
    let alone = gate.pace_polls(need);
    assert!(alone.spacing > SECOND * 20 && alone.closed_for.is_zero(), "a quarter is left: {alone:?}");
    *script.used.lock().unwrap() = used(360, 300);
    assert_eq!(gate.pace_polls(need).spacing, alone.spacing * 4, "and a quarter of it is its own");
    *script.used.lock().unwrap() = used(480, 300);
    assert_eq!(gate.pace_polls(need).closed_for, SECOND * 3_540, "the rest is kept for callers");
}

#[tokio::test(start_paused = true)]
async fn a_granted_call_teaches_what_all_replicas_used() {
    let (gate, script) = gate_that([go()]);
    let calls = vec![(SECOND * 60, 481)];
    *script.used.lock().unwrap() = SharedUse { calls, ..SharedUse::default() };
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(*script.reported.lock().unwrap(), [(0, 1)], "one call for a caller");
    let refused = gate.enter(&Asker::Background, SECOND * 10).await.map(drop);
    assert!(matches!(refused, Err(Refusal::Throttled(wait)) if wait > SECOND * 3_500), "{refused:?}");
}
