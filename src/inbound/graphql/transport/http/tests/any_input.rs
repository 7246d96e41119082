//! For any input, the response is JSON with data or a code.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any as anything, prop_assert, prop_oneof, proptest};

use super::*;

fn posted(body: Vec<u8>) -> EndpointAnswer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { fixture().post(body).await })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_body_gets_a_json_answer(body in prop_oneof![
        vec(anything::<u8>(), 0..200),
        "[\\[{\"query:,}\\] 0-9a-z\\\\]{0,60}".prop_map(String::into_bytes),
    ]) {
        let answer = posted(body);
        prop_assert!((400..500).contains(&answer.status) && answer.code() != "-", "{}", answer.text);
    }

    #[test]
    fn any_document_gets_a_json_answer(parts in vec(prop_oneof![
        Just("{"), Just("}"), Just("("), Just(")"), Just("["), Just("]"), Just(":"), Just("$x"), Just("@skip(if:true)"),
        Just("hello"), Just("nested"), Just("query"), Just("mutation"), Just("fragment F on Query"), Just("...F"),
        Just("... on Query"), Just("__schema"), Just("\"\"\""), Just("\""), Just("#\n"), Just("1.5e-3"), Just("é"),
    ], 0..40)) {
        let answer = posted(query(&parts.join(" ")).into_bytes());
        prop_assert!(answer.body.get("data").is_some() || answer.code() != "-", "{}", answer.text);
    }
}
