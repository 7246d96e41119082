//! A plan answers a query byte for byte as the engine does: random documents of the whole schema, and a table of the odd
//! ones.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::support::scale::scale;
use documents::GeneratedDocument;
use types::SchemaTypes;
use world::{Answer, CLIENTS, GraphqlCall, World};

mod corners;
mod deviations;
mod documents;
mod types;
mod values;
mod world;

/// How often the answer of the engine may change during one comparison.
const MOVES_MAX: usize = 4;

/// A request that a plan answers in another way than the engine.
struct Difference {
    call: GraphqlCall,
    by_the_engine: Answer,
    by_a_plan: Answer,
}

/// How many cases were tried, and how they were executed.
#[derive(Debug, Default)]
struct Counts {
    cases: usize,
    planned: usize,
    invalid: usize,
    /// Cases whose answer changed while they were compared.
    moved: usize,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, by_the_engine, by_a_plan } = self;
        writeln!(f, "{}", call.query)?;
        writeln!(f, "operation {:?} of {}, variables {}", call.operation, call.client, call.variables)?;
        writeln!(f, "engine: {by_the_engine:?}")?;
        write!(f, "plan:   {by_a_plan:?}")
    }
}

/// Sends the operations of a document with some variables to both; a new document once more, so that it is validated, and
/// the last request once more for another client, so that an equal one was prepared before.
async fn compare(
    world: &World,
    types: &SchemaTypes,
    document: &GeneratedDocument,
    rng: &mut Rng,
    counts: &mut Counts,
) -> Option<Difference> {
    for index in 0..3 {
        let operation = &document.operations[rng.usize(..document.operations.len())];
        let call = GraphqlCall {
            client: if rng.bool() { CLIENTS[0] } else { CLIENTS[rng.usize(..CLIENTS.len())] },
            query: document.text.clone(),
            operation: operation.name.clone(),
            variables: operation.variables(rng, types, &world.references),
            graphql_media: rng.bool(),
        };
        let found = compare_call(world, call.clone(), index == 0, counts).await;
        if found.is_some() {
            return found;
        }
        if index == 2 {
            let call = GraphqlCall { client: CLIENTS[rng.usize(..CLIENTS.len())], ..call };
            return compare_call(world, call, false, counts).await;
        }
    }
    None
}

/// Sends one request to both; a first one twice to the endpoint with plans.
///
/// A request can change the next answer: a fetch in the background may end, or a fetch can move the next poll of a followed
/// job. So a plan is compared with the engine before and after it, and both execute the call again while the answers of the
/// engine differ.
async fn compare_call(
    world: &World,
    call: GraphqlCall,
    is_first: bool,
    counts: &mut Counts,
) -> Option<Difference> {
    // what is due is fetched before, also in the background
    world.by_the_engine(&call).await;
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let mut by_the_engine = world.by_the_engine(&call).await;
    let (mut is_planned, mut has_moved) = (false, false);
    for _ in 0..=usize::from(is_first) {
        let mut by_a_plan;
        (by_a_plan, is_planned) = world.by_a_plan(&call).await;
        for _ in 0..MOVES_MAX {
            if by_a_plan == by_the_engine {
                break;
            }
            let again = world.by_the_engine(&call).await;
            if again == by_the_engine {
                break;
            }
            has_moved = true;
            by_the_engine = again;
            (by_a_plan, is_planned) = world.by_a_plan(&call).await;
        }
        if by_a_plan != by_the_engine {
            return Some(Difference { call, by_the_engine, by_a_plan });
        }
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "the clock moved: {call:?}");
    counts.cases += 1;
    counts.planned += usize::from(is_planned);
    counts.invalid += usize::from(!by_the_engine.body.contains("\"data\":"));
    counts.moved += usize::from(has_moved);
    None
}

#[expect(clippy::print_stderr, reason = "the figures of a long run")]
#[tokio::test(start_paused = true)]
async fn plan_answers_random_documents_as_the_engine_does() {
    let (cases, seed) = (scale("JOBGATE_PLAN_CASES", 600), scale("PROPTEST_RNG_SEED", fastrand::usize(..)));
    let mut rng = Rng::with_seed(seed as u64);
    let types = SchemaTypes::read();
    let world = World::new().await;
    let mut counts = Counts::default();
    let mut differences = 0;
    let mut shortest: Option<Difference> = None;
    while counts.cases < cases && differences < 200 {
        let size = rng.usize(2..60);
        let document = documents::generate(&mut rng, &types, &world.references, size);
        if let Some(found) = compare(&world, &types, &document, &mut rng, &mut counts).await {
            differences += 1;
            if shortest.as_ref().is_none_or(|held| found.call.query.len() < held.call.query.len()) {
                shortest = Some(found);
            }
        }
        // jobs are older, and some are fetched again, in the next comparison
        let pause = [0, 0, 700, 3_000, 60_000][rng.usize(..5)];
        tokio::time::advance(Duration::from_millis(pause)).await;
    }
    if let Some(shortest) = shortest {
        panic!("{differences} differences, seed {seed}, {counts:?}; the shortest:\n{shortest}");
    }
    eprintln!("{counts:?}");
    let Counts { cases, planned, invalid, moved } = counts;
    assert!(planned * 100 >= cases * 60, "{planned} of {cases} cases were planned");
    assert!(invalid * 100 <= cases * 5, "{invalid} of {cases} cases were not executed");
    assert!(moved <= 1 + cases / 1_000, "{moved} of {cases} cases moved while they were compared");
}
