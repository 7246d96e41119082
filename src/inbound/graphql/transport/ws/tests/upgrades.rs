//! The upgrade of a request to a socket, through the whole router.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tower::ServiceExt as _;

use super::*;
use crate::domain::principal::Principal;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A valid upgrade with some headers replaced; an empty value removes one.
fn request(changes: &[(&'static str, &str)]) -> Request {
    let mut request = Request::get("/graphql").body(Body::empty()).unwrap();
    let good = [
        ("host", "gw.example"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-protocol", "graphql-ws, graphql-transport-ws"),
    ];
    for (name, value) in good.iter().chain(changes) {
        let name = HeaderName::from_static(name);
        if value.is_empty() {
            request.headers_mut().remove(name);
        } else {
            request.headers_mut().insert(name, HeaderValue::try_from(*value).unwrap());
        }
    }
    request
}

#[tokio::test]
async fn valid_upgrade_is_accepted() {
    let fixture = fixture(StreamSettings::default());
    for changes in [&[][..], &[("origin", "https://gw.example")], &[("authorization", "Bearer key")]] {
        let response = fixture.app.clone().oneshot(request(changes)).await.unwrap();
        assert_eq!(response.status(), 101, "{changes:?}");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], PROTOCOL);
    }
}

#[tokio::test]
async fn invalid_upgrade_is_refused_with_an_http_status() {
    let fixture = fixture(StreamSettings { max_streams_per_client: 1, ..StreamSettings::default() });
    let held = fixture.streams.open(Transport::Sse, Some(&Principal::new("other", []))).unwrap();
    for (changes, status, code) in [
        (&[("origin", "https://evil.example")][..], 403, "ORIGIN_NOT_ALLOWED"),
        (&[("origin", "https://evil.example"), ("authorization", "Bearer key")], 403, "ORIGIN_NOT_ALLOWED"),
        (&[("authorization", "Bearer wrong")], 401, "UNAUTHENTICATED"),
        (&[("authorization", "Basic key")], 401, "UNAUTHENTICATED"),
        (&[("authorization", "Bearer other")], 429, "TOO_MANY_REQUESTS"),
        (&[("sec-websocket-protocol", "graphql-ws")], 400, "BAD_UPGRADE"),
        (&[("sec-websocket-protocol", "")], 400, "BAD_UPGRADE"),
        (&[("sec-websocket-protocol", "GraphQL-Transport-WS")], 400, "BAD_UPGRADE"),
        (&[("sec-websocket-version", "12")], 426, "UPGRADE_REQUIRED"),
        (&[("sec-websocket-version", "")], 426, "UPGRADE_REQUIRED"),
        (&[("sec-websocket-key", "")], 400, "BAD_UPGRADE"),
        (&[("sec-websocket-key", "c2hvcnQ=")], 400, "BAD_UPGRADE"),
        // the rest of it after a proxy that does not forward hop-by-hop headers
        (&[("connection", "close")], 426, "UPGRADE_REQUIRED"),
        (&[("upgrade", "")], 426, "UPGRADE_REQUIRED"),
        (&[("upgrade", "h2c")], 426, "UPGRADE_REQUIRED"),
        (
            &[("upgrade", ""), ("connection", "close"), ("authorization", "Bearer wrong")],
            426,
            "UPGRADE_REQUIRED",
        ),
        // not a handshake, so an ordinary request without a query
        (&[("upgrade", ""), ("sec-websocket-key", "")], 422, "BAD_REQUEST"),
    ] {
        let response = fixture.app.clone().oneshot(request(changes)).await.unwrap();
        assert_eq!(response.status(), status, "{changes:?}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429, "{changes:?}");
        if status == 426 {
            for (name, value) in
                [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")]
            {
                assert_eq!(response.headers()[name], value, "{changes:?}");
            }
        }
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["extensions"]["code"], code, "{changes:?}");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert_eq!(message.contains("server.allowed_origins"), status == 403, "{message}");
    }
    drop(held);
    fixture.idle().await;
}

#[tokio::test]
async fn upgrade_during_a_drain_is_refused_with_503() {
    let fixture = fixture(StreamSettings::default());
    fixture.streams.drain(SECOND).await;
    let response = fixture.app.clone().oneshot(request(&[])).await.unwrap();
    assert_eq!(response.status(), 503);
}

/// Opens a socket as a client does, with the whole HTTP server at the other end.
pub(super) async fn connect(fixture: &TestGraphql, authorization: Option<&str>) -> Result<Client, Error> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let service = TowerToHyperService::new(fixture.app.clone());
    let http = hyper::server::conn::http1::Builder::new();
    let serving = http.serve_connection(TokioIo::new(theirs), service).with_upgrades();
    fixture.tasks.spawn(async move { serving.await.unwrap() });
    let mut request = "ws://gw.example/graphql".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(authorization).unwrap());
    }
    let (socket, _) = tokio_tungstenite::client_async(request, ours).await?;
    Ok(Client { socket, opened: Instant::now() })
}

#[tokio::test(start_paused = true)]
async fn every_unambiguous_credential_form_is_accepted() {
    let fixture = fixture(StreamSettings::default());
    for (payload, name) in [
        (json!({ "Authorization": "Bearer key" }), "ui"),
        (json!({ "AUTHORIZATION": "bearer key" }), "ui"),
        (json!({ "authorization": "key" }), "ui"),
        (json!({ "headers": { "Authorization": "Bearer key" } }), "ui"),
        (json!({ "headers": { "authorization": "key", "x-other": "a" } }), "ui"),
        (json!({ "authorization": "Bearer key", "Authorization": "Bearer key" }), "ui"),
        (json!({ "authorization": "key", "headers": { "Authorization": "Bearer key" } }), "ui"),
        // nothing in it is a credential
        (json!({ "authorization": null, "headers": null }), "local"),
        (json!({ "headers": "Bearer key", "authToken": "key" }), "local"),
    ] {
        let mut client = connect(&fixture, None).await.unwrap();
        client.say(&json!({ "type": "connection_init", "payload": payload }).to_string()).await;
        client.receive().await;
        client.subscribe("1", "{hello}").await;
        assert_eq!(client.receive().await["payload"]["data"]["hello"], format!("hello {name}"), "{payload}");
    }
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn credential_in_header_or_payload_authenticates_the_socket() {
    let fixture = fixture(StreamSettings::default());
    for (header, payload, name) in [
        (None, None, Some("local")),
        (Some("Bearer key"), None, Some("ui")),
        (None, Some("Bearer key"), Some("ui")),
        (Some("Bearer key"), Some("Bearer other"), Some("other")),
        (Some("Bearer key"), Some("Bearer wrong"), None),
        (None, Some("Bearer wrong"), None),
    ] {
        let mut client = connect(&fixture, header).await.unwrap();
        let payload = payload.map(|token| json!({ "authorization": token }));
        client.say(&json!({ "type": "connection_init", "payload": payload }).to_string()).await;
        let Some(name) = name else {
            assert_eq!(client.end().await.0, Some(4401));
            continue;
        };
        client.receive().await;
        client.subscribe("1", "{hello}").await;
        assert_eq!(client.receive().await["payload"]["data"]["hello"], format!("hello {name}"), "{header:?}");
    }
    let Err(Error::Http(refused)) = connect(&fixture, Some("Bearer wrong")).await else { panic!("admitted") };
    assert_eq!(refused.status(), 401);
    fixture.idle().await;
}
