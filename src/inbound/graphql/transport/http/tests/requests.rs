//! Requests that are rejected for their form: bodies, URLs, methods, headers; and what is rejected before reading.

use std::future::pending;

use opentelemetry::trace::Status;

use super::*;
use crate::telemetry::trace::testing::RecordedSpans;

#[tokio::test]
async fn malformed_body_error_names_the_problem() {
    let fixture = fixture();
    let deep =
        format!(r#"{{"query":"{{hello}}","variables":{{"x":{}{}}}}}"#, "[".repeat(500), "]".repeat(500));
    for (body, status, expected) in [
        ("", 400, "not JSON"),
        ("NONSENSE", 400, "not JSON"),
        (r#"{"query":"#, 400, "line 1, column 9"),
        ("[{", 400, "not JSON"),
        ("[]", 422, "batches"),
        (r#"[{"query":"{hello}"}]"#, 422, "batches"),
        ("7", 422, "object"),
        ("null", 422, "object"),
        ("{}", 422, "query is missing"),
        (r#"{"qeury":"{hello}"}"#, 422, "query is missing"),
        (r#"{"query":null}"#, 422, "query is missing"),
        (r#"{"query":7}"#, 422, "query must be a string"),
        (r#"{"query":["{hello}"]}"#, 422, "query must be a string"),
        (r#"{"query":"{hello}","query":"{hello}"}"#, 422, "duplicate member"),
        (r#"{"query":"{hello}","variables":[7]}"#, 422, "variables must be"),
        (r#"{"query":"{hello}","variables":"{}"}"#, 422, "variables must be"),
        (r#"{"query":"{hello}","variables":{"x":1e999}}"#, 422, "variables must be"),
        (deep.as_str(), 422, "variables must be"),
        (r#"{"query":"{hello}","operationName":7}"#, 422, "operationName must be"),
        (r#"{"query":"{hello}","extensions":[]}"#, 422, "extensions must be"),
    ] {
        let answer = fixture.post(body.to_owned()).await;
        assert_eq!((answer.status, answer.code()), (status, "BAD_REQUEST"), "{body}");
        assert!(
            answer.body["errors"][0]["message"].as_str().unwrap().contains(expected),
            "{body} {}",
            answer.text
        );
        assert_eq!(answer.body.get("data"), None, "{body}");
    }
    assert_eq!(fixture.post(b"{\"query\":\"\xff\"}".as_slice()).await.status, 400);
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn null_and_unknown_members_of_a_body_are_ignored() {
    let fixture = fixture();
    let odd = r#"{"query":"{hello}","variables":null,"operationName":null,"extensions":null,"other":{}}"#;
    assert_eq!(fixture.post(odd).await.status, 200);
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn get_serves_queries_only() {
    let fixture = fixture();
    for (query, status, expected) in [
        ("query=%7Bhello%7D", 200, "hello local"),
        ("query=%7Bhello%7D&operationName=&variables=&extensions=&other=1&other=2", 200, "hello local"),
        ("query=query%20null%7Bhello%7D&operationName=null", 200, "hello local"),
        ("query=query($r:[Int!]!)%7Bjobs(refs:$r)%7D&variables=%7B%22r%22:[1,2]%7D", 200, "\"jobs\":2"),
        ("query=query%20A%7Bhello%7D%20mutation%20B%7Btouch%7D&operationName=A", 200, "hello local"),
        ("query=query%20A%7Bhello%7D%20mutation%20B%7Btouch%7D&operationName=B", 405, "over GET; use POST"),
        ("query=mutation%7Btouch%7D", 405, "over GET; use POST"),
        ("query=subscription%7Bx%7D", 405, "stream"),
        ("", 422, "query is missing"),
        ("query=", 422, "query is missing"),
        ("query=%7Bhello%7D&query=%7Bhello%7D", 422, "query occurs twice"),
        ("query=%7Bhello%7D&variables=%5B%5D", 422, "variables must be"),
        ("query=%7Bhello%7D&variables=%7B", 422, "variables must be"),
        ("query=%7Bhello%7D&extensions=7", 422, "extensions must be"),
        ("query=%FF", 400, "syntax error"),
    ] {
        let answer = fixture.get(query).await;
        assert_eq!(answer.status, status, "{query} {}", answer.text);
        assert!(answer.text.contains(expected), "{query} {}", answer.text);
        assert_eq!(
            answer.headers.get(header::ALLOW).is_some_and(|allow| allow == "POST"),
            status == 405,
            "{query}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_405() {
    let fixture = fixture();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"] {
        let request = Request::builder().method(method).uri("/graphql?query=%7Bhello%7D").body(Body::empty());
        let answer = fixture.send(request.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED"), "{method}");
        assert_eq!(answer.headers[header::ALLOW], "GET, HEAD, POST");
    }
}

/// The body of each request never arrives: what is rejected here is rejected before it is read.
#[tokio::test(start_paused = true)]
async fn bad_headers_are_refused_before_the_body_is_read() {
    let fixture = fixture();
    for (name, value, status, code) in [
        ("authorization", "Bearer wrong", 401, "UNAUTHENTICATED"),
        ("authorization", "Basic key", 401, "UNAUTHENTICATED"),
        ("accept", "text/html", 406, "NOT_ACCEPTABLE"),
        ("content-type", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("content-encoding", "gzip", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("authorization", "Bearer key", 408, "REQUEST_TIMEOUT"),
    ] {
        let never =
            Body::from_stream(futures_util::stream::once(pending::<Result<Vec<u8>, std::io::Error>>()));
        let mut request = post("*/*", never);
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = fixture.send(request).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{name}: {value}");
        assert_eq!(answer.content_type(), GRAPHQL, "{name}: {value}");
        assert_eq!(answer.headers.contains_key(header::WWW_AUTHENTICATE), status == 401, "{name}: {value}");
        assert!(!answer.text.contains("wrong"), "{}", answer.text);
    }
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_failed_operation_has_the_code_of_its_error_on_its_span() {
    let spans = RecordedSpans::start();
    let fixture = fixture();
    for (text, name, code) in [
        ("{hello}", "query", None),
        ("{refused}", "query", Some("BAD_USER_INPUT")),
        ("{bug}", "query", Some("INTERNAL_SERVER_ERROR")),
        ("{unknown}", "query", Some("GRAPHQL_VALIDATION_FAILED")),
        ("mutation($n: Int){touch(n: $n)}", "mutation", None),
        ("query($n: Int!){jobs(refs: [], n: $n)}", "query", Some("BAD_USER_INPUT")),
    ] {
        fixture.post(query(text)).await;
        let ended = spans.ended();
        let span = ended.iter().find(|span| span.name == name).unwrap();
        let attributes = span.attributes.iter().find(|pair| pair.key.as_str() == "error.type");
        assert_eq!(attributes.map(|pair| pair.value.as_str().into_owned()).as_deref(), code, "{text}");
        assert_eq!(matches!(span.status, Status::Error { .. }), code.is_some(), "{text}");
    }
}
