//! Documents that the engine answers in another way than the specification, or that a plan did not cover: the answer of a
//! plan is the one of the engine.

use serde_json::json;

use super::corners::{ABSENT, JOB1, call, same};
use super::world::{World, node_id};

/// Checks the answer to the second request, whether a plan or the engine executes it.
async fn second_answer_is_the_engines(world: &World, query: &str) {
    let call = call(query, json!({}));
    let expected = world.by_the_engine(&call).await;
    world.by_a_plan(&call).await;
    assert_eq!(world.by_a_plan(&call).await.0, expected, "{query}");
}

#[tokio::test(start_paused = true)]
async fn interleaved_fragments_are_merged_by_a_plan() {
    let world = World::new().await;
    let (query, expected) = (
        format!(
            "{{ {JOB1} {{ ...A ... on Job {{ isTerminal source {{ upstream }} }} ...B ...A }} }}
                fragment A on Job {{ source {{ name }} state }}
                fragment B on MindBridgeJob {{ state source {{ upstream health name }} externalId }}"
        ),
        r#"{"job":{"source":{"name":"mind","upstream":"MINDBRIDGE","health":"HEALTHY"},"state":"SUCCEEDED","isTerminal":true,"externalId":"job1"}}"#,
    );
    let body = same(&world, &call(&query, json!({})), true).await;
    assert_eq!(body, format!("{{\"data\":{expected}}}"));
}

/// The engine omits the fields of a fragment on a union within an object or interface.
#[tokio::test(start_paused = true)]
async fn union_condition_below_an_object_is_as_in_the_engine() {
    let world = World::new().await;
    let queries = [
        format!(
            "{{ {JOB1} {{ ... on Job {{ state ... on JobResult {{ ... on Job {{ externalId }} __typename }} }} }} }}"
        ),
        format!(
            "{{ {JOB1} {{ ... on MindBridgeJob {{ state ...F }} }} }} fragment F on JobResult {{ __typename }}"
        ),
        "{ jobList(first: 1) { nodes { state ... on JobResult { __typename } } } }".to_owned(),
    ];
    for query in queries {
        second_answer_is_the_engines(&world, &query).await;
    }
}

#[tokio::test(start_paused = true)]
async fn merged_node_fields_have_the_errors_of_the_engine() {
    let world = World::new().await;
    let slow = node_id("mind", "slow");
    let query = format!("{{ node(id: \"{slow}\") {{ id }} node(id: \"{slow}\") {{ __typename }} }}");
    second_answer_is_the_engines(&world, &query).await;
}

/// The engine accepts these, although the specification does not allow them.
#[tokio::test(start_paused = true)]
async fn conflicting_fields_are_answered_as_the_engine_does() {
    let world = World::new().await;
    let queries = [
        format!("{{ {JOB1} {{ ... on Job {{ a: state }} ... on MindBridgeJob {{ a: externalId }} }} }}"),
        format!(
            "{{ {JOB1} {{ ... on MindBridgeJob {{ a: createdBy {{ userId }} }} ... on Job {{ ... on MindBridgeJob {{ a: lastModifiedBy {{ userName }} }} }} }} }}"
        ),
        format!(
            "{{ {JOB1} {{ ... on Job {{ source {{ a: name }} }} }} {JOB1} {{ ... on Job {{ source {{ a: upstream }} }} }} }}"
        ),
        format!(
            "{{ {JOB1} {{ ... on Job {{ a: source {{ name }} }} ... on MindBridgeJob {{ a: freshness {{ isStale }} }} }} }}"
        ),
        format!(
            "{{ {JOB1} {{ ... on Job {{ externalId }} }} ... on Query {{ {ABSENT} {{ ... on JobProblem {{ code }} }} }} }}"
        ),
        format!("{{ {JOB1} {{ ... on Job {{ externalId }} }} ... on Query {{ job: sources {{ name }} }} }}"),
        format!("{{ a: __typename ... on Query {{ a: {JOB1} {{ __typename }} }} }}"),
    ];
    for query in queries {
        second_answer_is_the_engines(&world, &query).await;
    }
}

#[tokio::test(start_paused = true)]
async fn default_of_a_variable_in_a_directive_is_as_in_the_engine() {
    let world = World::new().await;
    for directive in ["skip", "include"] {
        let query = format!("query($on: Boolean! = true) {{ sources @{directive}(if: $on) {{ name }} }}");
        let call = call(&query, json!({}));
        let expected = world.by_the_engine(&call).await;
        world.by_a_plan(&call).await;
        assert_eq!(world.by_a_plan(&call).await.0, expected, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn flat_query_is_planned() {
    let world = World::new().await;
    let flat = "{ sources { name upstream health throttledUntil } }";
    let job = format!(
        "{{ {JOB1} {{ ... on Job {{ id externalId state isTerminal nativeState createdAt updatedAt finishedAt firstSeenAt stateSince }} ... on JobProblem {{ code message }} }} }}"
    );
    for query in [flat, &job] {
        same(&world, &call(query, json!({})), true).await;
    }
}
