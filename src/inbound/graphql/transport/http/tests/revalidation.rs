//! Entity tags of the answers to GET: what a browser has already is not sent again.

use super::*;

async fn get_knowing(fixture: &EndpointFixture, query: &str, known: Option<&HeaderMap>) -> Response {
    let mut request = Request::get(format!("/graphql?{query}")).header("accept", "application/json");
    if let Some(known) = known {
        request = request.header("if-none-match", &known[header::ETAG]);
    }
    fixture.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn unchanged_answer_to_a_get_is_not_sent_again() {
    let fixture = fixture();
    let first = get_knowing(&fixture, "query={hello}", None).await;
    let again = get_knowing(&fixture, "query={hello}", Some(first.headers())).await;
    assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 304));
    assert_eq!(again.headers()[header::ETAG], first.headers()[header::ETAG]);
    assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn changed_answer_to_a_get_is_sent() {
    let fixture = fixture();
    let other = get_knowing(&fixture, "query={hello}", None).await;
    let answer = get_knowing(&fixture, "query={kind}", Some(other.headers())).await;
    assert_eq!(answer.status(), 200);
    assert_ne!(answer.headers()[header::ETAG], other.headers()[header::ETAG]);
}

#[tokio::test]
async fn answer_to_a_get_is_for_the_cache_of_its_client_alone() {
    let answer = get_knowing(&fixture(), "query={hello}", None).await;
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "private, no-cache");
    assert_eq!(answer.headers()[header::VARY], "accept, accept-encoding, authorization");
    assert!(
        answer.headers()[header::ETAG].to_str().unwrap().starts_with("W/\""),
        "weak: it can be compressed"
    );
}

#[tokio::test]
async fn errors_and_answers_to_a_post_have_no_entity_tag() {
    let fixture = fixture();
    for query in ["query={must}", "query={unknown}", "query={hello+refused}"] {
        let answer = get_knowing(&fixture, query, None).await;
        assert!(!answer.headers().contains_key(header::ETAG), "{query}");
    }
    assert!(!fixture.post(query("{hello}")).await.headers.contains_key(header::ETAG));
}
