//! Documents over a limit: nothing runs, and the response is short and names the limit.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::*;
use crate::inbound::answer_limits::answer_memory::AnswerMemory;
use crate::inbound::answer_limits::cpu_limiter::{CpuLimiter, LARGE_VALUES};

#[tokio::test]
async fn document_over_a_limit_is_refused_before_execution() {
    let fixture = fixture();
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
        let answer = fixture.post(query(&text)).await;
        assert_eq!((answer.status, answer.code()), (422, code), "{}", answer.text);
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!((extensions["limit"].as_str(), extensions["value"].as_u64()), (Some(limit), Some(value)));
        assert!(answer.text.len() < 500, "{}", answer.text);
    }
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
    assert_eq!(fixture.post(query(&refs(1000))).await.status, 200);
    assert_eq!(fixture.post(query(&nested(11))).await.status, 200);
}

#[tokio::test]
async fn document_with_many_errors_gets_a_short_response() {
    let long = "x".repeat(100_000);
    let mistakes = (0..500).map(|index| format!(" nested{{e{index}}}")).collect::<Vec<_>>().concat();
    for text in [format!("{{{long}}}"), format!("{{nested{{{mistakes}}}}}")] {
        let answer = fixture().post(query(&text)).await;
        assert_eq!(answer.status, 422);
        assert!(answer.text.len() < 15_000, "{}", answer.text.len());
    }
}

#[tokio::test]
async fn answer_over_the_size_limit_is_refused() {
    let memory = AnswerMemory::new(200, usize::MAX);
    let fixture = fixture_with(Admission { memory: memory.clone(), ..Admission::default() });
    assert_eq!(fixture.post(query("{hello}")).await.status, 200);
    let aliases = (0..15).map(|alias| format!("a{alias}:hello")).collect::<Vec<_>>().join(" ");
    let answer = fixture.post(query(&format!("{{{aliases}}}"))).await;
    assert_eq!((answer.status, answer.code()), (422, "ANSWER_TOO_LARGE"), "{}", answer.text);
    assert!(answer.text.contains("200 bytes"), "{}", answer.text);
    assert_eq!(memory.used(), 0, "the reservation is released");
}

#[tokio::test]
async fn request_without_available_memory_is_refused_at_once() {
    let memory = AnswerMemory::new(1 << 20, 480);
    let fixture = fixture_with(Admission { memory: memory.clone(), ..Admission::default() });
    let local = memory.of(&Principal::local());
    let others = [(); 4].map(|()| local.begin(1).unwrap());
    let calls = fixture.calls.load(Ordering::SeqCst);
    let answer = fixture.post(query("{a:hello b:hello}")).await;
    assert_eq!((answer.status, answer.code()), (503, "OVERLOADED"), "{}", answer.text);
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    // rejected before execution: nothing ran
    assert_eq!(fixture.calls.load(Ordering::SeqCst), calls);
    drop(others);
    assert_eq!(fixture.post(query("{a:hello b:hello}")).await.status, 200);
    assert_eq!(memory.used(), 0);
}

/// Polls all tasks, and returns whether the request is answered.
async fn is_answered(request: &mut (impl Future + Unpin)) -> bool {
    poll_fn(|cx| Poll::Ready(request.poll_unpin(cx).is_ready())).await
}

#[tokio::test]
async fn only_a_large_answer_waits_for_a_cpu_permit() {
    let cpu = CpuLimiter::new(1);
    let fixture = fixture_with(Admission { cpu: cpu.clone(), ..Admission::default() });
    let large = query("{list{list{hello}}}");
    for accept in ["application/json", "text/event-stream"] {
        let mut gate = cpu.gate(&Principal::local(), LARGE_VALUES + 1).unwrap();
        let permit = poll_fn(|cx| gate.poll_permit(cx)).await;
        let pending = async {
            let response = fixture.app.clone().oneshot(post(accept, large.clone())).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        };
        let mut pending = pin!(pending);
        assert!(!is_answered(&mut pending).await, "{accept}");
        assert_eq!(fixture.post(query("{hello}")).await.status, 200, "{accept}");
        assert!(!is_answered(&mut pending).await, "{accept}");
        drop(permit);
        let bytes = pending.await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\"list\":[]"), "{accept} {text}");
    }
}

#[tokio::test]
async fn one_client_cannot_reserve_the_memory_of_others() {
    let memory = AnswerMemory::new(1 << 20, 1 << 20);
    let busy = memory.of(&Principal::new("busy", []));
    let fixture = fixture_with(Admission { memory: memory.clone(), ..Admission::default() });
    let held: Vec<_> =
        [1_000, 10, 1].iter().flat_map(|values| std::iter::from_fn(|| busy.begin(*values).ok())).collect();
    assert!(held.len() > 1 && memory.used() <= 1 << 19, "{}", memory.used());
    assert_eq!(fixture.post(query("{list{hello}}")).await.status, 200);
    for body in [query("{hello}"), query("{list{hello}}")] {
        let answer = fixture.post_as("busy", body).await;
        let is = (answer.status, answer.code());
        assert_eq!(is, (429, "TOO_MANY_REQUESTS"), "{}", answer.text);
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        assert_eq!(answer.body["errors"][0]["extensions"]["limit"], "answer_memory_per_client");
    }
    drop(held);
    assert_eq!(fixture.post_as("busy", query("{list{hello}}")).await.status, 200);
    assert_eq!(memory.used(), 0);
}
