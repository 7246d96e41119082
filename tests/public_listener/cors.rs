//! Requests of pages: those of other origins execute nothing, and those of an allowed origin may send keys and read
//! answers.

use jobgate_simulator::SimUpstream;
use serde_json::json;

use super::{MUTATION, QUERY, SERVER, clients, header, in_url, rig, send};
use crate::support::server::Rig;
use crate::support::wire::{self, Reply};

const ALLOWED: &str = "https://app.example";
const GOOD: [(&str, &str); 2] = [("authorization", "Bearer jg_calm"), ("content-type", "application/json")];
const BAD: [(&str, &str); 2] = [("authorization", "Bearer jg_nobody"), ("content-type", "application/json")];
const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", ALLOWED),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization, content-type"),
];

/// The section that allows one origin.
fn allowing() -> String {
    format!("server: {{ {SERVER}, allowed_origins: [\"{ALLOWED}\"] }}")
}

/// The same with clients.
async fn cors_rig() -> Rig {
    rig(format!("{}\n{}", allowing(), clients())).await
}

/// A preflight request with these headers.
async fn preflight(rig: &Rig, headers: &[(&str, &str)]) -> Reply {
    send(rig.public, "OPTIONS", "/graphql", headers, "").await
}

#[tokio::test]
async fn cross_site_requests_execute_nothing() {
    let rig = rig(allowing()).await;
    let types = [
        "application/json",
        "application/json; charset=utf-8",
        "application/graphql-response+json",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/mixed; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "text/event-stream",
        "application/octet-stream",
        "",
    ];
    let foreign = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost.evil.example"),
        ("origin", "https://app.example.evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    let mut sent = 0;
    for content_type in types {
        for (name, value) in foreign {
            for accept in ["application/json", "text/event-stream", "multipart/mixed"] {
                let headers = [("content-type", content_type), ("accept", accept), (name, value)];
                for document in [QUERY, MUTATION] {
                    let body = json!({ "query": document }).to_string();
                    let form = in_url(document).replace("/graphql?", "");
                    for (method, path, body) in [
                        ("POST", "/graphql", body.as_str()),
                        ("POST", "/graphql", form.as_str()),
                        ("GET", &in_url(document), ""),
                    ] {
                        let reply = send(rig.public, method, path, &headers, body).await;
                        assert_eq!(reply.refusal(), (403, "ORIGIN_NOT_ALLOWED".to_owned()), "{headers:?}");
                        assert_eq!(header(&reply, "access-control-allow-origin"), None);
                        sent += 1;
                    }
                }
            }
        }
    }
    for (name, value) in foreign {
        let reply = send(rig.public, "GET", "/v1/jobs/mind/a", &[(name, value)], "").await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (403, Some("ORIGIN_NOT_ALLOWED")));
    }
    // a page whose name resolves to this machine (DNS rebinding), and which so is of no other site
    let rebound = String::from_utf8(wire::request("GET", &in_url(QUERY), &[], "")).unwrap();
    let rebound = rebound.replace("host: localhost", "host: evil.example:8080");
    let reply = wire::exchange(rig.public, rebound.as_bytes()).await;
    assert_eq!(reply.refusal(), (403, "ORIGIN_NOT_ALLOWED".to_owned()));
    assert_eq!((sent, rig.upstreams.record()), (12 * 6 * 3 * 6, vec![]));
}

#[tokio::test]
async fn a_request_of_an_allowed_origin_is_executed() {
    let rig = rig(allowing()).await;
    let headers = [("content-type", "application/json"), ("accept", "application/json"), ("origin", ALLOWED)];
    let reply = send(rig.public, "POST", "/graphql", &headers, &json!({ "query": QUERY }).to_string()).await;
    assert_eq!(
        (reply.data()["job"]["__typename"].as_str(), rig.calls(SimUpstream::MindBridge)),
        (Some("MindBridgeJob"), 1)
    );
}

#[tokio::test]
async fn a_cross_site_link_to_a_page_is_followed() {
    let rig = rig(allowing()).await;
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_ne!(send(rig.public, "GET", "/", &link, "").await.status, 403);
}

#[tokio::test]
async fn a_preflight_lets_an_allowed_origin_send_keys() {
    let rig = cors_rig().await;
    for path in ["/graphql", "/v1/jobs/mind/a", "/nowhere"] {
        let reply = send(rig.public, "OPTIONS", path, &PREFLIGHT, "").await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path}");
        assert_eq!(header(&reply, "access-control-allow-origin"), Some(ALLOWED));
        assert_eq!(header(&reply, "access-control-allow-methods"), Some("GET, HEAD, POST"));
        let headers = header(&reply, "access-control-allow-headers").unwrap();
        assert_eq!(headers, PREFLIGHT[2].1, "{path}");
    }
}

#[tokio::test]
async fn a_preflight_without_headers_lists_the_usual_ones() {
    let rig = cors_rig().await;
    let reply = preflight(&rig, &PREFLIGHT[..2]).await;
    let headers = header(&reply, "access-control-allow-headers").unwrap();
    assert!(["authorization", "content-type", "prefer"].iter().all(|name| headers.contains(name)));
}

/// As monitoring in a page adds them.
#[tokio::test]
async fn a_preflight_allows_any_valid_header_name() {
    let rig = cors_rig().await;
    let [origin, method, (name, _)] = PREFLIGHT;
    let added = "authorization,baggage,graphql-require-preflight,sentry-trace,x-requested-with";
    let reply = preflight(&rig, &[origin, method, (name, added)]).await;
    assert_eq!(header(&reply, "access-control-allow-headers"), Some(added));
    for odd in ["a b", "x\u{1}y", "a,,b", &"x-long,".repeat(1_000)] {
        let reply = preflight(&rig, &[origin, method, (name, odd)]).await;
        assert_ne!(header(&reply, "access-control-allow-headers"), Some(odd));
    }
}

#[tokio::test]
async fn a_preflight_of_a_foreign_origin_is_rejected() {
    let rig = cors_rig().await;
    let foreign = [("origin", "https://evil.example"), PREFLIGHT[1], PREFLIGHT[2]];
    let reply = preflight(&rig, &foreign).await;
    assert_eq!((reply.status, header(&reply, "access-control-allow-origin")), (403, None));
    assert_eq!(header(&reply, "access-control-allow-methods"), None);
}

/// Answers of each status to a page of an allowed origin, each with its request.
async fn answers(rig: &Rig) -> Vec<(String, Reply)> {
    let body = json!({ "query": QUERY }).to_string();
    let long = "x".repeat(300_000);
    let mut answers = Vec::new();
    for (headers, method, path, body, status) in [
        (GOOD, "POST", "/graphql", body.as_str(), 200),
        (GOOD, "GET", "/v1/jobs/mind/a", "", 200),
        (BAD, "POST", "/graphql", &body, 401),
        (BAD, "GET", "/v1/jobs/mind/a", "", 401),
        (GOOD, "POST", "/graphql", &long, 413),
        (GOOD, "GET", "/nowhere", "", 404),
    ] {
        let headers = [headers[0], headers[1], ("origin", ALLOWED)];
        let reply = send(rig.public, method, path, &headers, body).await;
        assert_eq!(reply.status, status, "{method} {path}");
        answers.push((format!("{method} {path}"), reply));
    }
    answers
}

#[tokio::test]
async fn an_allowed_origin_may_read_every_answer() {
    for (request, reply) in answers(&cors_rig().await).await {
        assert_eq!(header(&reply, "access-control-allow-origin"), Some(ALLOWED), "{request}");
        assert_eq!(header(&reply, "vary"), Some("origin"), "{request}");
        assert!(header(&reply, "access-control-expose-headers").unwrap().contains("retry-after"));
        assert_eq!(header(&reply, "access-control-allow-credentials"), None, "keys are sent in a header");
    }
}

#[tokio::test]
async fn only_a_401_has_a_challenge() {
    for (request, reply) in answers(&cors_rig().await).await {
        let challenge = (reply.status == 401).then_some("Bearer error=\"invalid_token\"");
        assert_eq!(header(&reply, "www-authenticate"), challenge, "{request}");
    }
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    for (request, reply) in answers(&cors_rig().await).await {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(header(&reply, name), Some(value), "{request}");
        }
        assert_eq!(header(&reply, "strict-transport-security"), None, "not without TLS");
    }
}

/// A cache must not return to a page what another client requested.
#[tokio::test]
async fn an_answer_without_an_origin_varies_by_origin() {
    let rig = cors_rig().await;
    let body = json!({ "query": QUERY }).to_string();
    let plain = send(rig.public, "POST", "/graphql", &GOOD, &body).await;
    assert_eq!(header(&plain, "access-control-allow-origin"), None);
    assert_eq!(header(&plain, "vary"), Some("origin"));
}
