//! Values and variables in the document: each position by itself, and generated documents compared with the engine.

use std::cell::Cell;

use super::*;

/// A schema with every kind of position.
const PLACES: &str = "
    schema { query: Query }
    directive @skip(if: Boolean!) on FIELD
    scalar Even
    enum PositionColour { RED GREEN }
    input Leaf { name: String!  size: Int! = 3  even: Even }
    input Pick @oneOf { id: ID  leaf: Leaf  colours: [PositionColour!] }
    type Query { f(i: Int, n: Int!, d: Int! = 1, l: [Int], ln: [Int!], s: [Int!]!, grid: [[Int!]!], leaf: Leaf,
        leaves: [Leaf!], pick: Pick, picks: [Pick!]!, colour: PositionColour, even: Even, id: ID, float: Float): Int }";

fn refused(document: &str, variables: &Json) -> Option<(RefusalKind, String)> {
    let types = InputTypes::from_sdl(PLACES, &[("Even", even)]).unwrap();
    judge(&types, document, variables).err()
}

#[test]
fn variable_that_does_not_fit_its_position_is_refused() {
    let cases = [
        ("$v: Int", "i: $v", true),
        ("$v: Int!", "i: $v", true),
        ("$v: Int", "n: $v", false),
        ("$v: Int = 5", "n: $v", true),
        ("$v: Int = null", "n: $v", false),
        ("$v: Int!", "n: $v", true),
        ("$v: Int", "d: $v", true),
        ("$v: String", "i: $v", false),
        ("$v: Int", "float: $v", false),
        ("$v: String", "id: $v", false),
        ("$v: Int", "id: $v", false),
        ("$v: Int", "l: $v", false),
        ("$v: [Int]", "l: $v", true),
        ("$v: [Int!]!", "l: $v", true),
        ("$v: [Int]", "ln: $v", false),
        ("$v: [Int!]", "s: $v", false),
        ("$v: [Int!] = [1]", "s: $v", true),
        ("$v: Int", "l: [$v]", true),
        ("$v: Int", "s: [1, $v]", false),
        ("$v: Int!", "s: [1, $v]", true),
        ("$v: [Int!]!", "s: [$v]", false),
        ("$v: [Int!]!", "grid: [$v]", true),
        ("$v: Int!", "grid: [[$v]]", true),
        ("$v: Int!", "grid: [$v]", false),
        ("$v: Leaf!", "leaf: $v", true),
        ("$v: Leaf!", "leaves: $v", false),
        ("$v: Leaf!", "leaves: [$v]", true),
        ("$v: [Leaf!]!", "leaves: [$v]", false),
        ("$v: String!", "leaf: $v", false),
        ("$v: String!", "leaf: { name: $v }", true),
        ("$v: String", "leaf: { name: $v }", false),
        ("$v: Int!", "leaf: { name: $v }", false),
        ("$v: Int!", "leaf: { name: \"n\", size: $v }", true),
        ("$v: Int", "leaf: { name: \"n\", size: $v }", true),
        ("$v: String!", "leaves: { name: $v }", true),
        ("$v: ID!", "pick: { id: $v }", true),
        ("$v: ID", "pick: { id: $v }", false),
        ("$v: ID = 1", "pick: { id: $v }", true),
        ("$v: String!", "picks: [{ leaf: { name: $v } }]", true),
        ("$v: [PositionColour!]!", "picks: { colours: $v }", true),
        ("$v: PositionColour!", "picks: { colours: [$v] }", true),
        ("$v: Boolean!", "i: 1) @skip(if: $v", true),
        ("$v: Boolean", "i: 1) @skip(if: $v", false),
        ("$v: Int!", "i: 1) @skip(if: $v", false),
    ];
    let value = |of: &str| match of {
        of if of.contains("[Leaf") => json!([{ "name": "n" }]),
        of if of.contains("[PositionColour") => json!(["RED"]),
        of if of.contains('[') => json!([1]),
        of if of.contains("Leaf") => json!({ "name": "n" }),
        of if of.contains("PositionColour") => json!("RED"),
        of if of.contains("Boolean") => json!(true),
        of if of.contains("String") => json!("5"),
        _ => json!(5),
    };
    for (declared, use_, fits) in cases {
        let document = format!("query({declared}) {{ f({use_}) }}");
        let judged = refused(&document, &json!({ "v": value(declared) }));
        assert_eq!(judged.is_none(), fits, "{document}: {judged:?}");
        // a position in a fragment is a position of the operation
        let document = format!("query({declared}) {{ ...F }} fragment F on Query {{ f({use_}) }}");
        let judged = refused(&document, &json!({ "v": value(declared) }));
        assert_eq!(judged.is_none(), fits, "{document}: {judged:?}");
        if let Some((kind, message)) = judged {
            assert_eq!(kind, RefusalKind::DocumentInvalid, "{document}");
            assert!(message.contains("the variable \"$v\"") && !message.contains('5'), "{message}");
        }
    }
}

#[test]
fn variable_error_names_the_position_and_the_types() {
    let (_, message) = refused("query($v: [Int!]!) { g: f(s: [1, $v]) }", &json!({ "v": [77] })).unwrap();
    let expected = "the variable \"$v\" is of type \"[Int!]!\", and f.s[1] takes \"Int!\"; declare the variable as \
                    \"Int!\", or use another";
    assert_eq!(message, expected);
    let null = refused("query($v: Int = 5) { f(n: $v) }", &json!({ "v": null }));
    let message = "variables.v must not be null, because f.n takes \"Int!\"".to_owned();
    assert_eq!(null, Some((RefusalKind::BadInput, message)));
    let absent = refused("query($v: Int) { f(n: 1, d: $v) }", &json!({}));
    let message = "variables.v has no value, and f.d takes \"Int!\"; give the variable a value or a default, or leave \
                   out the argument";
    assert_eq!(absent, Some((RefusalKind::BadInput, message.to_owned())));
}

#[test]
fn invalid_literal_error_names_its_position() {
    let cases = [
        ("i: 5", None),
        ("i: null", None),
        ("i: \"77\"", Some("f.i must be an Int, a 32-bit whole number without a fraction")),
        ("i: {}", Some("f.i must be an Int, not an object")),
        ("i: [1]", Some("f.i must be an Int, not a list")),
        ("n: null", Some("f.n must not be null; it must be an Int!")),
        ("l: 5", None),
        (
            "grid: [[1], [\"77\"]]",
            Some("f.grid[1][0] must be an Int, a 32-bit whole number without a fraction"),
        ),
        ("leaf: \"77\"", Some("f.leaf must be a Leaf, given as an object")),
        ("leaf: 77", Some("f.leaf must be a Leaf, given as an object")),
        ("leaf: RED", Some("f.leaf must be a Leaf, given as an object")),
        ("leaf: [{ name: \"n\" }]", Some("f.leaf must be a Leaf, not a list")),
        ("leaves: { name: \"n\" }", None),
        ("leaves: [77]", Some("f.leaves[0] must be a Leaf, given as an object")),
        ("leaf: {}", Some("f.leaf.name is missing; it must be a String!")),
        ("leaf: { name: null }", Some("f.leaf.name must not be null; it must be a String!")),
        (
            "leaf: { name: \"n\", more: 1 }",
            Some("f.leaf has a field \"more\", which Leaf does not have; remove it"),
        ),
        ("pick: {}", Some("f.pick must have exactly one of the fields of Pick")),
        ("pick: { id: 1, leaf: null }", Some("f.pick must have exactly one of the fields of Pick")),
        ("pick: { id: null }", Some("f.pick.id must not be null; it must be an ID!")),
        ("picks: [{ colours: RED }]", None),
        ("colour: BLUE", Some("f.colour must be one of the values of PositionColour")),
        ("even: \"odd\"", Some("f.even must be of even length")),
        ("leaf: { name: \"n\", even: \"odd\" }", Some("f.leaf.even must be of even length")),
        ("even: RED", Some("f.even must be an Even, given as a string")),
        ("float: 1", None),
        ("unknown: 1", None),
    ];
    for (literal, expected) in cases {
        let judged = refused(&format!("{{ f({literal}) }}"), &json!({}));
        let expected = expected.map(|message| (RefusalKind::DocumentInvalid, message.to_owned()));
        assert_eq!(judged, expected, "{literal}");
    }
}

#[test]
fn field_selected_on_a_union_gets_a_fragment_hint() {
    let types = schema::input_types().unwrap();
    let cases = [
        ("{ job(ref: { id: 1 }) { state } }", Some("... on Job { state }")),
        ("{ jobs(refs: { id: 1 }) { version } }", Some("... on MindBridgeJob { version }")),
        ("{ jobs(refs: { id: 1 }) { message } }", Some("... on JobProblem { message }")),
        ("{ node(id: 1) { state } }", Some("... on Job { state }")),
        ("{ jobList(first: 1) { nodes { requestId } } }", Some("... on SupermetricsJob { requestId }")),
        ("subscription { jobUpdates(refs: { id: 1 }) { result { state } } }", Some("... on Job { state }")),
        ("{ job(ref: { id: 1 }) { ... on Job { state } __typename } }", None),
        ("{ job(ref: { id: 1 }) { stat } }", None),
    ];
    for (document, hint) in cases {
        let judged = judge(&types, document, &json!({})).err();
        assert_eq!(judged.is_some(), hint.is_some(), "{document}: {judged:?}");
        if let (Some((_, message)), Some(hint)) = (judged, hint) {
            assert!(message.ends_with(hint), "{message}");
        }
    }
}

/// The document of the bug report: the first mutation ran, and the second one failed.
#[test]
fn nested_list_variable_is_refused_before_any_mutation() {
    let types = schema::input_types().unwrap();
    let document = "mutation($r: [JobRef!]!) { a: untrackJobs(input: { refs: $r }) { untracked } \
                    b: untrackJobs(input: { refs: [$r] }) { untracked } }";
    let (kind, message) = judge(&types, document, &json!({ "r": [{ "id": "x" }] })).unwrap_err();
    assert_eq!(kind, RefusalKind::DocumentInvalid);
    assert!(message.contains("untrackJobs.input.refs[0] takes \"JobRef!\""), "{message}");
}

/// Arguments of mutations with variables and literals of every kind in every position.
fn any_argument() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "$r", "$j", "$id", "$ids", "$s", "$n", "$i", "$l", "$ls", "$t", "$u", "\"x\"", "5", "5.5", "true",
        "null", "RED", "\"5m\"", "{}", "[]",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(5, 24, 3, |inner| {
        let key = proptest::sample::select(vec![
            "refs", "labels", "id", "external", "source", "externalId", "name", "value", "ttl", "more",
        ]);
        let good = prop_oneof![
            inner.clone().prop_map(|value| format!("{{ refs: {value} }}")),
            inner.clone().prop_map(|value| format!("{{ refs: [{value}] }}")),
            inner.clone().prop_map(|value| format!("{{ id: {value} }}")),
            (inner.clone(), inner.clone()).prop_map(|(source, id)| format!(
                "{{ external: {{ source: {source}, externalId: {id} }} }}"
            )),
        ];
        prop_oneof![
            4 => good,
            1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(", "))),
            1 => (key, inner).prop_map(|(key, value)| format!("{{ {key}: {value} }}")),
        ]
    })
}

#[test]
fn no_mutation_runs_in_a_request_that_later_fails() {
    let (types, schema) = (schema::input_types().unwrap(), bare());
    let by_id = json!({ "id": "x" });
    let config = ProptestConfig { cases: 2048, ..ProptestConfig::default() };
    let accepted = Cell::new(0);
    proptest!(config, |(
        argument in any_argument(),
        field in proptest::sample::select(vec!["untrackJobs", "trackJobs", "createWatchToken"]),
        (given, nulls) in (0_u16.., 0_u16..),
    )| {
        let result = match field { "untrackJobs" => "untracked", "trackJobs" => "results { __typename }", _ => "token" };
        let all = [
            ("r", "[JobRef!]!", json!([by_id])), ("j", "JobRef!", by_id.clone()), ("id", "ID!", json!("x")),
            ("ids", "[ID!]", json!(["x"])), ("s", "String!", json!("x")), ("n", "String", json!("x")),
            ("i", "Int", json!(5)), ("l", "LabelInput!", json!({ "name": "n", "value": "v" })),
            ("ls", "[LabelInput!]", json!([])), ("t", "Duration", json!("5m")), ("u", "ID", json!("x")),
        ];
        let (mut declared, mut variables) = (Vec::new(), serde_json::Map::new());
        for (index, (name, of, value)) in all.into_iter().enumerate() {
            let used = format!("{argument} ").split(|c: char| !c.is_alphanumeric() && c != '$').any(|word| word == format!("${name}"));
            if !used {
                continue;
            }
            declared.push(format!("${name}: {of}"));
            let nullable = !of.ends_with('!');
            if nullable && nulls >> index & 1 == 1 {
                variables.insert(name.to_owned(), Json::Null);
            } else if !nullable || given >> index & 1 == 1 {
                variables.insert(name.to_owned(), value);
            }
        }
        let declared = if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        let document = format!("mutation{declared} {{ a: {field}(input: {argument}) {{ {result} }} }}");
        let variables = Json::Object(variables);
        if judge(&types, &document, &variables).is_ok() {
            accepted.set(accepted.get() + 1);
            let request = Request::new(&document).variables(Variables::from_json(variables.clone()));
            let response = schema.execute(request).now_or_never().expect("no resolver waits");
            // either validation rejects the whole document, or every argument reaches its resolver
            for error in response.errors {
                let of_a_resolver = error.extensions.is_some() || error.message.starts_with("Data `");
                prop_assert!(of_a_resolver || error.path.is_empty(), "{} {}: {:?}", document, variables, error);
            }
        }
    });
    assert!(accepted.get() > 20, "the generator makes too few valid documents: {}", accepted.get());
}
