//! What is between the gateway and an upstream in a company network: a proxy that records its requests, and a server
//! that terminates TLS before the simulator, each on its own sockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The name in the certificates of upstreams. DNS does not resolve it: it is reachable only through a proxy.
pub(crate) const HOST: &str = "upstream.example";

/// One request as the proxy received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Method and target: `CONNECT host:port`, or `GET http://…`.
    pub(crate) line: String,
    /// `user:password`, if the request contained them.
    pub(crate) credential: Option<String>,
    /// The whole head.
    pub(crate) head: String,
}

/// A proxy. Every tunnel goes to one address, and every plain request to another, whatever the request names.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy that requires this `user:password`, if any.
    pub(crate) async fn start(wanted: Option<&str>, tunnel: SocketAddr, plain: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed: Arc<Mutex<Vec<Passed>>> = Arc::default();
        let (wanted, log) = (wanted.map(str::to_owned), Arc::clone(&passed));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(pass(stream, wanted.clone(), Arc::clone(&log), tunnel, plain));
            }
        });
        Self { address, passed, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that it received so far.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }
}

async fn pass(
    mut client: TcpStream,
    wanted: Option<String>,
    log: Arc<Mutex<Vec<Passed>>>,
    tunnel: SocketAddr,
    plain: SocketAddr,
) {
    let Some((head, rest)) = head(&mut client).await else { return };
    let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
    let shown = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": Basic ")?;
        let decoded = STANDARD.decode(value.trim()).ok()?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| String::from_utf8(decoded).unwrap())
    });
    let good = wanted.is_none() || shown == wanted;
    log.lock().unwrap().push(Passed { line: line.clone(), credential: shown, head: head.clone() });
    if !good {
        // the page repeats what was sent, as the worst proxies do
        let page = format!("not allowed: {head}");
        let answer = format!(
            "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
            page.len()
        );
        client.write_all(answer.as_bytes()).await.ok();
        return;
    }
    if line.starts_with("CONNECT ") {
        let Ok(mut upstream) = TcpStream::connect(tunnel).await else { return };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok();
        copy_bidirectional(&mut client, &mut upstream).await.ok();
        return;
    }
    // one request per connection, in origin form
    let Ok(mut upstream) = TcpStream::connect(plain).await else { return };
    let (method, url) = line.split_once(' ').unwrap();
    let url = url::Url::parse(url).unwrap();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let kept: Vec<&str> = head
        .split("\r\n")
        .skip(1)
        .filter(|line| !line.to_ascii_lowercase().starts_with("proxy-") && !line.is_empty())
        .collect();
    let kept = kept.join("\r\n");
    let sent = format!("{method} {}{query} HTTP/1.1\r\nconnection: close\r\n{kept}\r\n\r\n", url.path());
    upstream.write_all(sent.as_bytes()).await.ok();
    upstream.write_all(&rest).await.ok();
    copy_bidirectional(&mut client, &mut upstream).await.ok();
}

/// Reads the head of a request, and the bytes after it.
async fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap(), rest));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A certificate authority for both sides.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM form.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("authority {:x}", fastrand::u64(..)));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the server of this name.
    pub(crate) fn server(&self, name: &str) -> Issued {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, false)
    }

    /// An expired one.
    pub(crate) fn expired(&self, name: &str) -> Issued {
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, true)
    }

    /// A certificate for a client.
    pub(crate) fn client(&self) -> Issued {
        self.issue("gateway.example", ExtendedKeyUsagePurpose::ClientAuth, false)
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose, expired: bool) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A server that terminates TLS and forwards the bytes.
#[derive(Debug)]
pub(crate) struct TlsEnd {
    pub(crate) address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    open: Arc<Mutex<JoinSet<()>>>,
    _tasks: JoinSet<()>,
}

impl TlsEnd {
    /// Starts one with this certificate. It requires a client certificate of this authority, if there is one.
    pub(crate) async fn start(shown: &Issued, clients: Option<&Authority>, behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(server_config(shown, clients)));
        let open: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let (held, connections) = (Arc::clone(&config), Arc::clone(&open));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&held.lock().unwrap()));
                connections.lock().unwrap().spawn(async move {
                    let mut client = match acceptor.accept(stream).into_fallible().await {
                        Ok(client) => client,
                        Err((_, mut refused)) => {
                            // If it is closed with a request unread, the connection is reset, and the peer may lose the
                            // alert.
                            copy(&mut refused, &mut sink()).await.ok();
                            return;
                        }
                    };
                    let Ok(mut upstream) = TcpStream::connect(behind).await else { return };
                    copy_bidirectional(&mut client, &mut upstream).await.ok();
                });
            }
        });
        Self { address, config, open, _tasks: tasks }
    }

    /// Replaces the certificate and the required authority, and closes every connection.
    pub(crate) fn change(&self, shown: &Issued, clients: Option<&Authority>) {
        *self.config.lock().unwrap() = server_config(shown, clients);
        self.open.lock().unwrap().abort_all();
    }
}

fn server_config(shown: &Issued, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = CertificateDer::pem_slice_iter(shown.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}
