//! Documents that ask for too much: nothing runs, and the answer is short and names the limit.

use super::*;

#[tokio::test]
async fn what_exceeds_a_limit_runs_nothing_and_names_the_limit() {
    let house = house();
    let nested = |depth: usize| format!("{}hello{}", "{nested".repeat(depth) + "{", "}".repeat(depth + 1));
    let refs = |count: usize| format!("{{hello jobs(refs:[{}])}}", "1,".repeat(count));
    for (text, code, limit, value) in [
        (format!("{{hello{}}}", " @skip(if:false)".repeat(20_000)), "DOCUMENT_TOO_LARGE", "max_tokens", 2000),
        (format!("{{hello{}}}", " a:hello".repeat(10_000)), "DOCUMENT_TOO_LARGE", "max_tokens", 2000),
        (format!("{{hello(x:{})}}", "[".repeat(900)), "DOCUMENT_TOO_LARGE", "max_nesting", 64),
        (nested(12), "DOCUMENT_TOO_COMPLEX", "max_depth", 12),
        (format!("{{nested{{{}}}}}", " a:hello".repeat(51)), "DOCUMENT_TOO_COMPLEX", "max_aliases", 50),
        (format!("{{{}}}", " hello".repeat(21)), "DOCUMENT_TOO_COMPLEX", "max_root_fields", 20),
        (format!("{{hello{}}}", " @skip(if:false)".repeat(21)), "DOCUMENT_TOO_COMPLEX", "max_directives", 20),
        (refs(1001), "DOCUMENT_TOO_COMPLEX", "max_cost", 1000),
    ] {
        let answer = house.post(query(&text)).await;
        assert_eq!((answer.status, answer.code()), (422, code), "{}", answer.text);
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!((extensions["limit"].as_str(), extensions["value"].as_u64()), (Some(limit), Some(value)));
        assert!(answer.text.len() < 500, "{}", answer.text);
    }
    assert_eq!(house.calls.load(Ordering::SeqCst), 0);
    assert_eq!(house.post(query(&refs(1000))).await.status, 200);
    assert_eq!(house.post(query(&nested(11))).await.status, 200);
}

#[tokio::test]
async fn a_document_of_mistakes_gets_a_short_answer() {
    let long = "x".repeat(100_000);
    let mistakes = (0..500).map(|index| format!(" nested{{e{index}}}")).collect::<Vec<_>>().concat();
    for text in [format!("{{{long}}}"), format!("{{nested{{{mistakes}}}}}")] {
        let answer = house().post(query(&text)).await;
        assert_eq!(answer.status, 422);
        assert!(answer.text.len() < 15_000, "{}", answer.text.len());
    }
}

#[tokio::test]
async fn an_answer_longer_than_allowed_is_refused() {
    let memory = AnswerMemory::new(200, usize::MAX);
    let house = house_with(Admission { memory: memory.clone(), ..Admission::default() });
    assert_eq!(house.post(query("{hello}")).await.status, 200);
    let aliases = (0..15).map(|alias| format!("a{alias}:hello")).collect::<Vec<_>>().join(" ");
    let answer = house.post(query(&format!("{{{aliases}}}"))).await;
    assert_eq!((answer.status, answer.code()), (422, "ANSWER_TOO_LARGE"), "{}", answer.text);
    assert!(answer.text.contains("200 bytes"), "{}", answer.text);
    assert_eq!(memory.used(), 0, "what was reserved is given back");
}

#[tokio::test]
async fn without_memory_for_it_a_request_is_refused_at_once() {
    let memory = AnswerMemory::new(1 << 20, 480);
    let house = house_with(Admission { memory: memory.clone(), ..Admission::default() });
    let others = [memory.begin(3).unwrap(), memory.begin(3).unwrap()];
    let calls = house.calls.load(Ordering::SeqCst);
    let answer = house.post(query("{a:hello b:hello}")).await;
    assert_eq!((answer.status, answer.code()), (503, "OVERLOADED"), "{}", answer.text);
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    // counted where it was not begun: nothing ran
    assert_eq!(house.calls.load(Ordering::SeqCst), calls);
    drop(others);
    assert_eq!(house.post(query("{a:hello b:hello}")).await.status, 200);
    assert_eq!(memory.used(), 0);
}
