//! The guarantees of the upstream HTTP client, against a server on a real socket.

use super::*;
use crate::domain::id::ExternalId;
use crate::outbound::http::{BaseUrl, BaseUrlError, CallQuery, UrlSegment};
use crate::outbound::testing::{ScriptedServer, answer};
use crate::telemetry::trace::testing::second_subscriber;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use std::sync::{Arc, Mutex};
use url::Url;

const SECRET: &str = "CANARY-0123456789/+=";

fn bearer() -> Credential {
    Credential::Bearer(SecretString::from(SECRET))
}

fn api_key() -> Credential {
    Credential::ApiKey(SecretString::from(SECRET))
}

fn call(base: &str, segments: &[&str]) -> UpstreamCall {
    UpstreamCall {
        method: Method::GET,
        base: BaseUrl::new(Url::parse(base).unwrap()).unwrap(),
        segments: segments.iter().map(|segment| UrlSegment::Id((*segment).to_owned())).collect(),
        query: CallQuery::Json(serde_json::Map::new()),
        body: None,
        max_body: 1 << 20,
        about: None,
    }
}

async fn send(call: &UpstreamCall, credential: &Credential) -> Result<UpstreamReply, SendError> {
    // long, since none of these tests is about time: the gzip bomb alone occupies a busy machine for a while
    UpstreamHttpClient::new()
        .unwrap()
        .send(call, Duration::from_mins(5), credential, &SecretMask::new([credential]))
        .await
}

/// `megabytes` of blanks as gzip, compressed by the system's own tool.
fn bomb(megabytes: usize) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut gzip =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..megabytes {
            input.write_all(&vec![b' '; 1 << 20]).unwrap();
        }
    });
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[tokio::test]
async fn gzip_bomb_is_stopped_at_the_size_limit() {
    let bomb = bomb(64);
    assert!(bomb.len() < 1 << 18, "the compressed body is small");
    for encoding in ["gzip", "x-gzip"] {
        let (bomb, header) = (bomb.clone(), format!("content-encoding: {encoding}\r\n"));
        let server = ScriptedServer::start(move |_| answer(200, &header, &bomb));
        let sent = send(&call(&server.url, &["a"]), &bearer()).await;
        let Err(SendError::TooLarge { cap, head }) = sent else { unreachable!("{encoding}: {sent:?}") };
        assert_eq!((cap, head.body.len()), (1 << 20, 1 << 20), "{encoding}");
        let roomy = UpstreamCall { max_body: 64 << 20, ..call(&server.url, &["a"]) };
        assert_eq!(send(&roomy, &bearer()).await.unwrap().body.len(), 64 << 20, "{encoding}");
    }
}

#[tokio::test]
async fn truncated_gzip_body_is_a_broken_response() {
    for encoding in ["gzip", "x-gzip"] {
        let (half, header) = (bomb(1)[..500].to_vec(), format!("content-encoding: {encoding}\r\n"));
        let server = ScriptedServer::start(move |_| answer(200, &header, &half));
        let sent = send(&call(&server.url, &["a"]), &bearer()).await;
        assert!(matches!(sent, Err(SendError::Broken(_))), "{encoding}: {sent:?}");
    }
}

#[tokio::test]
async fn redirect_is_returned_and_not_followed() {
    let elsewhere = ScriptedServer::start(|_| answer(200, "", "{}"));
    let location = format!("location: {}/x\r\n", elsewhere.url);
    let server = ScriptedServer::start(move |_| answer(302, &location, ""));
    let reply = send(&call(&server.url, &["a"]), &api_key()).await.unwrap();
    assert_eq!(reply.status, StatusCode::FOUND);
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn no_error_shows_the_secret_or_the_url() {
    // bound and never listening, so that no other test gets the port
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = format!("http://{}", silent.local_addr().unwrap());
    let closing = ScriptedServer::start(|_| Vec::new());
    let cut = ScriptedServer::start(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec());
    let garbled = ScriptedServer::start(|_| answer(200, "content-encoding: gzip\r\n", "this is not gzip"));
    let nonsense = ScriptedServer::start(|_| format!("{SECRET} {SECRET}\r\n\r\n").into_bytes());
    for credential in [bearer(), api_key()] {
        for base in [&dead, &closing.url, &cut.url, &garbled.url, &nonsense.url] {
            let error = send(&call(base, &["segment-of-the-url"]), &credential).await.unwrap_err();
            assert_eq!(matches!(error, SendError::Connect(_)), *base == dead, "{error:?}");
            assert!(matches!(error, SendError::Connect(_) | SendError::Broken(_)), "{error:?}");
            let shown = format!("{error} {error:?} {}", chain(&error));
            for secret in ["CANARY", "api_key", "segment-of-the-url"] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
    }
}

#[tokio::test]
async fn unanswered_request_times_out_at_its_deadline() {
    let server = ScriptedServer::start(|_| {
        std::thread::park_timeout(Duration::from_mins(1));
        Vec::new()
    });
    let http_client = UpstreamHttpClient::new().unwrap();
    let sent = http_client
        .send(&call(&server.url, &["a"]), Duration::from_millis(50), &bearer(), &SecretMask::default())
        .await;
    assert!(matches!(sent, Err(SendError::TimedOut(_))), "{sent:?}");
}

/// An upstream that repeats what it received.
fn echo() -> ScriptedServer {
    ScriptedServer::start(|seen| answer(200, "", format!("you sent {} {}", seen.head, seen.json())))
}

#[tokio::test]
async fn credential_is_sent_only_in_its_designated_place() {
    let server = echo();
    send(&call(&server.url, &["a"]), &bearer()).await.unwrap();
    send(&call(&server.url, &["a"]), &api_key()).await.unwrap();
    let seen = server.seen();
    assert!(seen[0].head.contains(&format!("authorization: Bearer {SECRET}\r\n")), "{}", seen[0].head);
    assert!(!seen[0].target().contains("CANARY"));
    assert_eq!(seen[1].json()["api_key"], SECRET);
    assert!(!seen[1].head.contains("authorization"));
}

#[tokio::test]
async fn echoed_credential_is_masked() {
    let server = echo();
    for credential in [bearer(), api_key()] {
        let reply = send(&call(&server.url, &["a"]), &credential).await.unwrap();
        assert!(!String::from_utf8_lossy(&reply.body).contains("CANARY"));
    }
}

#[tokio::test]
async fn call_without_a_place_for_its_credential_is_not_sent() {
    let server = echo();
    for query in [CallQuery::None, CallQuery::Pairs(vec![("page", "0".to_owned())])] {
        let sent = send(&UpstreamCall { query, ..call(&server.url, &["a"]) }, &api_key()).await;
        assert!(matches!(sent, Err(SendError::Unsendable(_))));
    }
    assert_eq!(server.seen().len(), 0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_contains_the_url_but_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _second = second_subscriber();
    let _guard = tracing::subscriber::set_default(subscriber);
    let echoing = ScriptedServer::start(|seen| answer(200, "", &seen.head));
    let closing = ScriptedServer::start(|_| Vec::new());
    for server in [&echoing, &closing] {
        for credential in [bearer(), api_key()] {
            send(&call(&server.url, &["segment-of-the-url"]), &credential).await.ok();
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("segment-of-the-url?json=").count(), 4, "{log}");
    assert!(!log.contains("CANARY") && !log.contains("api_key"), "{log}");
}

#[test]
fn a_signed_request_does_not_print_its_bearer_token() {
    let call = call("http://h/api", &["a"]);
    let mut request = request(&call).unwrap();
    sign(&mut request, &call, &bearer()).unwrap();
    assert!(request.headers()[AUTHORIZATION].is_sensitive());
    assert!(!format!("{request:?}").contains("CANARY"));
}

#[test]
fn no_id_escapes_its_url_segment() {
    let hostile = [
        "..", ".", "../a", "%2e%2e", "%2E%2e/", "..\\", "a/b", "a\\b", "a?b=c", "a#b", "a%2Fb", "a\nb",
        "\t..", ".\n.", "a b", "é", "", "a;b", "//h", "@h", ":80", "http://h", "..;", "%00", "\0", "...",
        "a.", "..a", "~", "a:b",
    ];
    let held = |text: &str| {
        let Ok(id) = ExternalId::parse(text) else { return };
        for base in ["http://h", "http://h/", "http://h/api", "http://h/api/"] {
            let url = call(base, &["v1", id.as_str()]).url().expect("a valid id is accepted");
            assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("h"), Some("json=%7B%7D"), None));
            let path: Vec<&str> = url.path_segments().unwrap().collect();
            let expected = if base.contains("api") { vec!["api", "v1", text] } else { vec!["v1", text] };
            assert_eq!(path, expected, "{text:?} under {base}");
        }
    };
    for text in hostile {
        held(text);
    }
    // a pushed segment, valid or not, either stays one segment or is not sent
    let mut runner = TestRunner::new(Config::with_cases(300));
    let pieces = prop::sample::select(vec![
        "..", ".", "/", "\\", "%2e", "%2F", "?", "#", "\n", "\t", "a", ":", "@", "~", "é",
    ]);
    let strings = prop::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat());
    runner
        .run(&strings, |text| {
            held(&text);
            if let Some(url) = call("http://h/api", &["v1", &text]).url() {
                prop_assert_eq!(url.host_str(), Some("h"));
                let path: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(path.len(), 3, "{}", url);
                prop_assert_eq!(&path[..2], &["api", "v1"]);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn id_is_recorded_as_a_placeholder_whatever_it_is() {
    for id in ["j-1", "status", "v1"] {
        let segments = vec![UrlSegment::Constant("v1"), UrlSegment::Id(id.to_owned())];
        let call = UpstreamCall { segments, ..call("http://h", &[]) };
        assert_eq!(call.template(), "/v1/{id}", "{id}");
        assert_eq!(call.url().unwrap().path(), format!("/v1/{id}"));
    }
}

#[test]
fn invalid_base_url_is_refused_with_its_reason() {
    let cases = [
        ("https://h/api", None),
        ("http://127.0.0.1:1", None),
        ("ftp://h", Some(BaseUrlError::Scheme)),
        ("data:x", Some(BaseUrlError::Scheme)),
        ("https://u@h", Some(BaseUrlError::UserInfo)),
        ("https://:p@h", Some(BaseUrlError::UserInfo)),
        ("https://h?api_key=x", Some(BaseUrlError::Query)),
        ("https://h#x", Some(BaseUrlError::Query)),
    ];
    for (text, expected) in cases {
        assert_eq!(BaseUrl::new(Url::parse(text).unwrap()).err(), expected, "{text}");
    }
}

#[tokio::test]
async fn untrusted_certificate_is_reported_as_a_tls_error() {
    let http_client = UpstreamHttpClient::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let call = call(&format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port()), &["a"]);
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.ok();
        }
    };
    let (credential, mask) = (bearer(), SecretMask::default());
    let sent = tokio::select! {
        () = serve => unreachable!("the server never stops"),
        sent = http_client.send(&call, Duration::from_mins(5), &credential, &mask) => sent,
    };
    let error = sent.unwrap_err();
    assert!(matches!(error, SendError::Tls(_)), "{error:?}");
    assert!(error.full_text().contains("UnknownIssuer"), "{}", error.full_text());
}

#[test]
fn a_connection_dropped_before_the_request_is_explained() {
    let text = "client error (Canceled): operation was canceled: connection was not ready";
    let explained = explained(text.to_owned());
    assert!(explained.starts_with("the upstream closed the connection before the request was sent"));
    assert!(explained.contains("client_cert") && explained.ends_with(text), "{explained}");
    assert_eq!(super::explained("anything else".to_owned()), "anything else");
}
