//! The guarantees of the layers, each through the whole stack and a route made for it.

use std::future::pending;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::inbound::http::body_limit::body_too_large;
use crate::inbound::http::request_id::REQUEST_ID;

fn app(settings: &LayerSettings) -> Router {
    let read = async |body: Body| match body.collect().await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(_) => body_too_large(None).into_response(),
    };
    let routes = Router::new()
        .route("/fine", get(async || "fine"))
        .route("/panics", get(async || -> StatusCode { panic!("secret in a panic") }))
        .route("/large", get(async || ([("content-type", "application/json")], " ".repeat(4_096))))
        .route("/events", get(async || ([("content-type", "text/event-stream")], " ".repeat(4_096))))
        .route("/hangs", get(pending::<StatusCode>))
        .route("/reads", post(read));
    around(routes, settings)
}

fn get_request(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn refused(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&body).contains("secret"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    (status, body["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_json_with_a_code_and_the_common_headers() {
    let settings = LayerSettings { max_body: 10, ..LayerSettings::default() };
    let streamed =
        Body::from_stream(futures_util::stream::iter(["12345", "67890", "1"].map(Ok::<_, std::io::Error>)));
    for (request, expected) in [
        (get_request("/panics"), (500, "INTERNAL_SERVER_ERROR")),
        (get_request("/hangs"), (504, "DEADLINE_EXCEEDED")),
        (Request::post("/reads").body(Body::from("12345678901")).unwrap(), (413, "PAYLOAD_TOO_LARGE")),
        (Request::post("/reads").body(streamed).unwrap(), (413, "PAYLOAD_TOO_LARGE")),
    ] {
        let path = request.uri().path().to_owned();
        let response = app(&settings).oneshot(request).await.unwrap();
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(response.headers()[name], value, "{path}");
        }
        assert_eq!(response.headers()[REQUEST_ID].len(), 32, "{path}");
        let (status, code) = refused(response).await;
        assert_eq!((status, code.as_str()), expected, "{path}");
    }
}

#[tokio::test]
async fn a_body_at_the_limit_is_read() {
    let settings = LayerSettings { max_body: 10, ..LayerSettings::default() };
    let request = Request::post("/reads").body(Body::from("1234567890")).unwrap();
    assert_eq!(app(&settings).oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn request_over_the_concurrency_limit_gets_503() {
    let settings = LayerSettings {
        concurrency: ConcurrencyLimit::new(1),
        retry_after: Duration::from_millis(1500),
        ..LayerSettings::default()
    };
    let app = app(&settings);
    let mut hanging = std::pin::pin!(app.clone().oneshot(get_request("/hangs")));
    assert!(futures_util::poll!(&mut hanging).is_pending());

    let response = app.clone().oneshot(get_request("/fine")).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(refused(response).await, (503, "OVERLOADED".to_owned()));

    let hanging = hanging.await.unwrap();
    assert_eq!(
        (hanging.status().as_u16(), &hanging.headers()[header::RETRY_AFTER]),
        (504, &HeaderValue::from(1))
    );
    assert_eq!(app.oneshot(get_request("/fine")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn request_id_is_accepted_only_if_well_formed() {
    let long = "x".repeat(65);
    for (given, kept) in
        [("abc-1.2_3", true), ("a b", false), ("é", false), (long.as_str(), false), ("", false)]
    {
        let request =
            Request::get("/fine").header("x-request-id", given.as_bytes()).body(Body::empty()).unwrap();
        let response = app(&LayerSettings::default()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[REQUEST_ID].as_bytes() == given.as_bytes(), kept, "{given}");
    }
}

/// The encoding of the answer to a client that accepts some.
async fn encoding(path: &str, accepted: &str) -> Option<String> {
    let request = Request::get(path).header("accept-encoding", accepted).body(Body::empty()).unwrap();
    let response = app(&LayerSettings::default()).oneshot(request).await.unwrap();
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    encoding.map(|encoding| encoding.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn large_answer_is_compressed_as_the_client_accepts() {
    for accepted in ["gzip", "br", "zstd"] {
        assert_eq!(encoding("/large", accepted).await.as_deref(), Some(accepted));
    }
    for accepted in ["", "identity", "deflate", "gzip;q=0"] {
        assert_eq!(encoding("/large", accepted).await, None, "{accepted}");
    }
}

#[tokio::test]
async fn small_answers_and_streams_are_not_compressed() {
    for path in ["/fine", "/events"] {
        assert_eq!(encoding(path, "gzip").await, None, "{path}");
    }
}

#[tokio::test]
async fn answer_that_could_be_compressed_varies_by_encoding() {
    for (path, accepted, varies) in [
        ("/large", Some("gzip"), 1),
        ("/large", Some("identity"), 1),
        ("/large", None, 1),
        ("/fine", Some("gzip"), 0),
        ("/events", None, 0),
    ] {
        let request = Request::get(path);
        let request =
            accepted.into_iter().fold(request, |request, one| request.header("accept-encoding", one));
        let response =
            app(&LayerSettings::default()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let lists = response.headers().get_all(header::VARY).iter();
        let named = lists.filter(|list| list.to_str().unwrap().contains("accept-encoding")).count();
        assert_eq!(named, varies, "{path} {accepted:?}");
    }
}
