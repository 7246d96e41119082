//! The rules with a schema made for them, and compared with the engine: what passes here does not fail there.

use async_graphql::parser::parse_query;
use async_graphql::{Request, Variables};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::inbound::graphql::document::operation::OperationInfo;
use crate::inbound::graphql::schema::{self, GatewaySchema};
use crate::inbound::http::error::RefusalKind;

const SDL: &str = "
    scalar Even  scalar Anything
    enum InputColour { RED GREEN }
    input Leaf { name: String!  size: Int! = 3 }
    input Pick @oneOf { id: ID  leaf: Leaf  colours: [InputColour!] }
    input Tree { leaf: Leaf!  colours: [InputColour!]  kids: [Tree!]  grid: [[Int]]  picks: [Pick!]! = [] }
    type Query { f: Int }";

fn even(text: &str) -> Result<(), String> {
    if text.len().is_multiple_of(2) { Ok(()) } else { Err("must be of even length".to_owned()) }
}

fn judge(types: &InputTypes, document: &str, variables: &Json) -> Result<(), (RefusalKind, String)> {
    let document = parse_query(document).unwrap();
    let (_, operation) = OperationInfo::select(&document, None).unwrap();
    let variables = Variables::from_json(variables.clone());
    let checked = types.check(operation, &variables);
    checked.and_then(|()| types.check_positions(&document, operation, &variables)).map_err(|refusal| {
        let kind = refusal.kind();
        (kind, refusal.into_json()["message"].as_str().unwrap().to_owned())
    })
}

#[test]
fn coercion_error_names_the_path_of_the_value() {
    let types = InputTypes::from_sdl(SDL, &[("Even", even)]).unwrap();
    let leaf = json!({ "name": "n" });
    let int = "variables.v must be an Int, a 32-bit whole number without a fraction";
    let id = "variables.v must be an ID, given as a string or a whole number";
    let one = "variables.v must have exactly one of the fields of Pick";
    let cases = [
        ("Int", json!(i32::MAX), ""),
        ("Int", json!(i32::MIN), ""),
        ("Int", json!(i64::from(i32::MAX) + 1), int),
        ("Int", json!(u64::MAX), int),
        ("Int", json!(1.5), int),
        ("Int", json!(1.0), int),
        ("Int", json!("1"), int),
        ("Int", json!(true), int),
        ("Int", json!([1]), int),
        ("Int", json!({}), int),
        ("Int", Json::Null, ""),
        ("Int!", Json::Null, "variable \"$v\" of type \"Int!\" has no value; add it to variables"),
        ("Float", json!(1), ""),
        ("Float", json!(1.5e300), ""),
        ("Float", json!("1.5"), "variables.v must be a Float"),
        ("String", json!(""), ""),
        ("String", json!(5), "variables.v must be a String"),
        ("Boolean", json!(false), ""),
        ("Boolean", json!(0), "variables.v must be a Boolean"),
        ("ID", json!("x"), ""),
        ("ID", json!(-7), ""),
        ("ID", json!(1.5), id),
        ("ID", json!(true), id),
        ("InputColour", json!("RED"), ""),
        ("InputColour", json!("red"), "variables.v must be one of the values of InputColour"),
        ("InputColour", json!(0), "variables.v must be one of the values of InputColour"),
        ("Even", json!("ab"), ""),
        ("Even", json!("abc"), "variables.v must be of even length"),
        ("Even", json!(22), "variables.v must be an Even, given as a string"),
        ("Even", json!([]), "variables.v must be an Even, given as a string"),
        ("Anything", json!([{ "a": [1, null] }]), ""),
        ("Anything!", Json::Null, "variable \"$v\" of type \"Anything!\" has no value; add it to variables"),
        ("Unheard", json!(5), ""),
        ("Query", json!(5), ""),
        ("[Int!]", json!([]), ""),
        ("[Int!]", json!(5), ""),
        ("[Int!]", json!([1, null]), "variables.v[1] must not be null; it must be an Int!"),
        ("[Int]", json!([1, null]), ""),
        ("[[Int]]", json!(1), ""),
        ("[[Int]]", json!([[1], 2, null]), ""),
        (
            "[[Int!]]",
            json!([[1], ["x"]]),
            "variables.v[1][0] must be an Int, a 32-bit whole number without a fraction",
        ),
        ("[Leaf!]!", json!(5), "variables.v must be a Leaf, given as an object"),
        ("[Leaf!]!", json!(leaf), ""),
        ("Leaf", json!([leaf]), "variables.v must be a Leaf, given as an object"),
        ("Leaf", json!({}), "variables.v.name is missing; it must be a String!"),
        ("Leaf", json!({ "name": null }), "variables.v.name must not be null; it must be a String!"),
        (
            "Leaf",
            json!({ "name": "n", "size": null }),
            "variables.v.size must not be null; it must be an Int!",
        ),
        (
            "Leaf",
            json!({ "name": "n", "more": 1 }),
            "variables.v has a field \"more\", which Leaf does not have; remove it",
        ),
        ("Pick", json!({ "id": 1 }), ""),
        ("Pick", json!({}), one),
        ("Pick", json!({ "id": 1, "leaf": leaf }), one),
        ("Pick", json!({ "id": 1, "leaf": null }), one),
        (
            "Pick",
            json!({ "id": null }),
            "variables.v.id must not be null, because it is the only field that is set",
        ),
        ("Pick", json!({ "colours": "RED" }), ""),
        ("Tree", json!({ "leaf": leaf, "grid": [[1]], "kids": [{ "leaf": leaf }] }), ""),
        (
            "[Tree!]",
            json!([{ "leaf": leaf, "picks": [{ "id": 1 }, { "leaf": { "name": 5 } }] }]),
            "variables.v[0].picks[1].leaf.name must be a String",
        ),
    ];
    for (of, value, expected) in cases {
        let judged = judge(&types, &format!("query($v: {of}) {{ f }}"), &json!({ "v": value }));
        let expected =
            if expected.is_empty() { Ok(()) } else { Err((RefusalKind::BadInput, expected.to_owned())) };
        assert_eq!(judged, expected, "{of}: {value}");
    }
}

#[test]
fn variable_defaults_are_applied_and_validated() {
    let types = InputTypes::from_sdl(SDL, &[]).unwrap();
    let cases = [
        ("query($v: Int! = 1) { f }", json!({}), None),
        ("query($v: Int! = 1) { f }", json!({ "v": null }), Some(RefusalKind::BadInput)),
        ("query($v: Int!) { f }", json!({}), Some(RefusalKind::BadInput)),
        ("query($v: Int) { f }", json!({ "undeclared": 5 }), None),
        ("query($v: InputColour = RED) { f }", json!({}), None),
        ("query($v: [Leaf!]! = 5) { f }", json!({}), Some(RefusalKind::DocumentInvalid)),
        ("query($v: [Leaf!]! = 5) { f }", json!({ "v": [] }), Some(RefusalKind::DocumentInvalid)),
        ("query($v: [Leaf!]! = { name: \"n\" }) { f }", json!({}), None),
    ];
    for (document, variables, expected) in cases {
        let judged = judge(&types, document, &variables).err().map(|(kind, _)| kind);
        assert_eq!(judged, expected, "{document}: {variables}");
    }
}

#[test]
fn nesting_of_recursive_input_types_is_bounded() {
    let types = InputTypes::from_sdl(SDL, &[]).unwrap();
    let tree = |levels: usize| {
        let leaf = json!({ "name": "n" });
        (0..levels).fold(json!({ "leaf": leaf }), |kid, _| json!({ "leaf": leaf, "kids": [kid] }))
    };
    let judged = |levels| judge(&types, "query($v: Tree) { f }", &json!({ "v": tree(levels) }));
    assert_eq!(judged(31), Ok(()));
    let (kind, message) = judged(33).unwrap_err();
    assert_eq!(kind, RefusalKind::BadInput);
    assert!(message.ends_with("is nested deeper than 64 levels; nest less"), "{message}");
}

/// The engine's validation panics at such a list if it has a default, also in an operation that is not selected.
#[test]
fn list_of_a_non_input_type_is_refused_before_validation() {
    let types = schema::input_types().unwrap();
    for of in ["[Nope]", "[[Nope!]!]!", "[Job]"] {
        let document = parse_query(format!("query A {{ f }} query B($v: {of} = [1]) {{ f }}")).unwrap();
        let refusal = types.check_declared(&document).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::DocumentInvalid, "{of}");
    }
    let document = parse_query("query($a: Nope, $b: [[JobRef!]], $c: [Int] = 1) { f }").unwrap();
    assert!(types.check_declared(&document).is_ok());
}

/// Operations of the real schema, each with a variable of another type and a value of that type.
fn real() -> Vec<(&'static str, Json)> {
    let by_id = json!({ "id": "x" });
    let by_name = json!({ "external": { "source": "mind", "externalId": "a" } });
    let label = json!({ "name": "team", "value": "audit" });
    vec![
        ("query($v: JobRef!) { job(ref: $v) { __typename } }", by_name.clone()),
        ("query($v: [JobRef!]!) { jobs(refs: $v) { __typename } }", json!([by_id, by_name])),
        ("query($v: [ID!]!) { nodes(ids: $v) { id } }", json!(["x", 7])),
        ("query($v: ID!) { node(id: $v) { id } }", json!(7)),
        ("query($v: Duration) { job(ref: { id: \"x\" }, maxStaleness: $v) { __typename } }", json!("5m")),
        ("query($v: Duration!) { jobAwait(ref: { id: \"x\" }, timeout: $v) { __typename } }", json!("1s")),
        ("query($v: Int!) { jobList(first: $v) { nodes { id } } }", json!(5)),
        ("query($v: String) { jobList(first: 1, after: $v) { nodes { id } } }", json!("x")),
        (
            "query($v: JobFilter) { jobList(filter: $v, first: 1) { nodes { id } } }",
            json!({ "sources": ["mind"], "states": ["QUEUED", "UNKNOWN"], "labels": [label],
                "observedSince": "2026-11-21T19:10:00Z" }),
        ),
        (
            "mutation($v: TrackJobsInput!) { trackJobs(input: $v) { results { __typename } } }",
            json!({ "refs": [by_id, by_name], "labels": [label] }),
        ),
        (
            "mutation($v: UntrackJobsInput!) { untrackJobs(input: $v) { untracked } }",
            json!({ "refs": [by_id] }),
        ),
        ("mutation($v: [JobRef!]!) { untrackJobs(input: { refs: $v }) { untracked } }", json!([by_id])),
        ("query($v: Boolean!) { sources { name @skip(if: $v) __typename } }", json!(true)),
    ]
}

/// The real schema without the use cases: each resolver fails at its first step.
fn bare() -> GatewaySchema {
    schema::types().finish()
}

/// Fails unless every error of the engine comes from a resolver: it was called with its arguments.
fn assert_the_engine_agrees(schema: &GatewaySchema, document: &str, variables: &Json) {
    let request = Request::new(document).variables(Variables::from_json(variables.clone()));
    let response = schema.execute(request).now_or_never().expect("no resolver waits");
    for error in response.errors {
        let of_a_resolver = error.extensions.is_some() || error.message.starts_with("Data `");
        assert!(of_a_resolver && !error.path.is_empty(), "{document} {variables}: {error:?}");
    }
}

#[test]
fn valid_value_of_each_type_reaches_its_resolver() {
    let (types, schema) = (schema::input_types().unwrap(), bare());
    for (document, value) in real() {
        let variables = json!({ "v": value });
        assert_eq!(judge(&types, document, &variables), Ok(()), "{document}");
        assert_the_engine_agrees(&schema, document, &variables);
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let words = ["x", "", "5m", "-1s", "QUEUED", "queued", "2026-11-21T19:10:00Z", "7"];
    let keys =
        ["id", "external", "source", "externalId", "refs", "labels", "name", "value", "states", "more"];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i8>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        proptest::sample::select(words.to_vec()).prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let key = prop_oneof![
            9 => proptest::sample::select(keys.to_vec()).prop_map(str::to_owned),
            1 => Just("$serde_json::private::RawValue".to_owned()),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec((key, inner), 0..4)
                .prop_map(|all| Json::Object(all.into_iter().collect())),
        ]
    })
}

/// Replaces the `n`-th nested value, counted from the outside.
fn replace(value: &mut Json, n: &mut usize, with: &Json) {
    let here = *n == 0;
    *n = n.wrapping_sub(1);
    if here {
        value.clone_from(with);
    } else if let Json::Array(items) = value {
        for item in items {
            replace(item, n, with);
        }
    } else if let Json::Object(members) = value {
        members.values_mut().for_each(|member| replace(member, n, with));
    }
}

#[test]
fn coerced_variables_never_fail_in_the_engine() {
    let (types, schema) = (schema::input_types().unwrap(), bare());
    proptest!(|(at in 0..real().len(), n in 0_usize..12, with in any_json())| {
        let (document, mut value) = real().swap_remove(at);
        let mut n = n;
        replace(&mut value, &mut n, &with);
        let variables = json!({ "v": value });
        if judge(&types, document, &variables).is_ok() {
            assert_the_engine_agrees(&schema, document, &variables);
        }
    });
}

mod position;
