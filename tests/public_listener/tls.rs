//! The public listener with TLS, against the real binary.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::slow_clients::gateway;
use crate::support::process::run;
use crate::support::scratch::Scratch;
use crate::support::server::Setup;
use crate::support::streams::LIMIT;
use crate::support::wire;

/// The files of a certificate for `localhost`, and a client that trusts it.
pub(crate) struct Files {
    pub(crate) cert: Scratch,
    pub(crate) key: Scratch,
    pub(crate) roots: RootCertStore,
}

pub(crate) fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Files {
        cert: Scratch::new(&made.cert.pem()),
        key: Scratch::new(&made.signing_key.serialize_pem()),
        roots,
    }
}

impl Files {
    pub(crate) fn option(&self) -> String {
        self.option_and("")
    }

    /// The same with more options of the section, each followed by a comma.
    fn option_and(&self, more: &str) -> String {
        format!(
            "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, {more}tls: {{ cert: {}, key: {} }} }}",
            self.cert.path(),
            self.key.path()
        )
    }
}

/// One exchange over TLS of these versions: the negotiated version and protocol, and the answer.
pub(crate) async fn exchange(
    to: SocketAddr,
    roots: &RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
    request: &[u8],
) -> std::io::Result<(Option<ProtocolVersion>, Option<Vec<u8>>, String)> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut socket = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (_, session) = socket.get_ref();
    let agreed = (session.protocol_version(), session.alpn_protocol().map(<[u8]>::to_vec));
    socket.write_all(request).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    Ok((agreed.0, agreed.1, String::from_utf8_lossy(&answer).into_owned()))
}

/// The files of another server.
fn stranger() -> Files {
    files()
}

/// A query of a page of this origin.
fn query(origin: &str) -> Vec<u8> {
    wire::request("GET", "/graphql?query=%7B__typename%7D", &[("origin", origin)], "")
}

#[tokio::test]
async fn the_public_listener_serves_tls_with_a_certificate() {
    let files = files();
    let (_gateway, to) = gateway(&files.option()).await;
    for version in [&version::TLS12, &version::TLS13] {
        let (spoken, protocol, answer) =
            exchange(to, &files.roots, &[version], &query("https://localhost")).await.unwrap();
        assert_eq!((spoken, protocol), (Some(version.version), Some(b"http/1.1".to_vec())));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"Query\""), "{answer}");
    }
    assert!(exchange(to, &stranger().roots, &[&version::TLS13], &query("https://localhost")).await.is_err());
}

#[tokio::test]
async fn a_tls_answer_has_strict_transport_security() {
    let files = files();
    let (_gateway, to) = gateway(&files.option()).await;
    for version in [&version::TLS12, &version::TLS13] {
        let (_, _, answer) =
            exchange(to, &files.roots, &[version], &query("https://localhost")).await.unwrap();
        assert!(answer.contains("strict-transport-security: max-age=31536000\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_page_without_tls_is_foreign_to_a_tls_listener() {
    let files = files();
    let (_gateway, to) = gateway(&files.option()).await;
    let (_, _, answer) =
        exchange(to, &files.roots, &[&version::TLS13], &query("http://localhost")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_tls_listener_does_not_answer_plain_http() {
    let files = files();
    let (_gateway, to) = gateway(&files.option()).await;
    let plain = wire::get(to, "/graphql?query=%7B__typename%7D").await;
    assert_eq!(plain.status, 0, "{}", plain.head);
}

#[tokio::test]
async fn a_connection_without_a_tls_handshake_times_out() {
    // short for this one alone: on some machines a handshake takes more than a second
    let files = files();
    let (_gateway, to) = gateway(&files.option_and("header_timeout: 1s, ")).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(to).await.unwrap();
    let mut received = Vec::new();
    let ended = tokio::time::timeout(LIMIT, silent.read_to_end(&mut received)).await;
    assert!(ended.is_ok() && began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
}

/// What `serve` and `check` print for these files, both of which fail.
async fn rejected(cert: &str, key: &str) -> Vec<String> {
    let rest = format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, tls: {{ cert: {cert}, key: {key} }} }}"
    );
    let setup = Setup { rest, ..Setup::default() };
    let config = Scratch::new(&setup.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
    let env = [("MIND_TOKEN", "t"), ("METRICS_KEY", "k")];
    let mut all = Vec::new();
    for command in ["serve", "check"] {
        let (code, received) = run(&[command, "--config", config.path()], &env).await;
        assert!(code != Some(0) && received.contains("server.tls"), "{command}: {received}");
        all.push(received);
    }
    all
}

#[tokio::test]
async fn a_tls_file_error_names_the_option() {
    let (good, other) = (files(), files());
    for (cert, key, fault) in [
        (good.cert.path(), "/no/such/file", "server.tls.key: /no/such/file cannot be read"),
        ("/no/such/file", good.key.path(), "server.tls.cert: /no/such/file cannot be read"),
        (good.key.path(), good.key.path(), "server.tls.cert: holds no certificate in pem"),
        (good.cert.path(), good.cert.path(), "server.tls.key: holds no private key in pem"),
        (good.cert.path(), other.key.path(), "server.tls: the key is not that of the certificate"),
    ] {
        let received = rejected(cert, key).await;
        assert!(received.iter().all(|text| text.contains(fault)), "{fault}: {received:?}");
    }
}

#[tokio::test]
async fn a_tls_file_error_quotes_no_content() {
    let canary = "cAnaRy-31337";
    let odd =
        Scratch::new(&format!("-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----\n{canary}"));
    let received = rejected(files().cert.path(), odd.path()).await;
    assert!(!received.concat().contains(canary), "{received:?}");
}
