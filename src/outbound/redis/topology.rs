//! The topology behind the configured addresses: one server, sentinels, or a cluster. Opens connections, and keeps
//! none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};
use secrecy::{ExposeSecret as _, SecretString};

/// The topology behind the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyMode {
    /// One server.
    Single,
    /// Sentinels that know the server of this name.
    Sentinel(String),
    /// Some nodes of a cluster.
    Cluster,
}

/// The addresses cannot be used. Never contains one: they may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// One of them cannot be parsed.
    #[error(
        "must hold redis://host:port or rediss://host:port, with user:password@ before the host where needed, \
             and for sentinels and clusters several of them between commas"
    )]
    Url,
    /// More than one for a single server.
    #[error("holds several addresses: set mode to sentinel or cluster, or keep one")]
    Several,
    /// A certificate cannot be parsed, or is given for addresses without TLS.
    #[error("ca_file must hold certificates in PEM form, and goes with rediss:// addresses")]
    Authorities,
}

/// Addresses that can be connected to.
pub(super) struct Topology {
    mode: TopologyMode,
    infos: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
    cluster: Option<ClusterClient>,
    sentinel_password: Option<SecretString>,
    timeout: Duration,
    /// The server that sentinels returned last, and how often it changed.
    named: Mutex<(Option<ConnectionAddr>, u64)>,
}

/// An open connection. A cheap clone; requests on it do not wait for each other.
#[derive(Clone)]
pub(super) enum TopologyConnection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl TopologyConnection {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        // An error reply of the server is returned as a value.
        answer?.extract_error()
    }
}

impl Topology {
    pub(super) fn new(
        urls: &SecretString,
        mode: TopologyMode,
        authorities: Option<&[u8]>,
        sentinel_password: Option<SecretString>,
        timeout: Duration,
    ) -> Result<Self, BadAddress> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // A concurrent caller installed the same one.
            rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        }
        let split = |letter: char| letter == ',' || letter.is_whitespace();
        let urls = urls.expose_secret().split(split).filter(|url| !url.is_empty());
        let infos = urls.map(read).collect::<Result<Vec<_>, _>>()?;
        match infos.len() {
            0 => return Err(BadAddress::Url),
            1 => {}
            _ if mode == TopologyMode::Single => return Err(BadAddress::Several),
            _ => {}
        }
        let root_cert = authorities.map(<[u8]>::to_vec);
        let certificates = root_cert.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        if let Some(certificates) = &certificates {
            for info in &infos {
                Client::build_with_tls(info.clone(), certificates.clone())
                    .map_err(|_| BadAddress::Authorities)?;
            }
        }
        let mut cluster = None;
        if mode == TopologyMode::Cluster {
            let mut builder = ClusterClient::builder(infos.clone())
                .connection_timeout(timeout)
                .response_timeout(timeout)
                .retries(2)
                .tcp_settings(TcpSettings::default().set_nodelay(true));
            if let Some(certificates) = &certificates {
                builder = builder.certs(certificates.clone());
            }
            cluster = Some(builder.build().map_err(|_| BadAddress::Url)?);
        }
        Ok(Self { mode, infos, certificates, cluster, sentinel_password, timeout, named: Mutex::default() })
    }

    /// How often sentinels returned another server than before.
    pub(super) fn failovers(&self) -> u64 {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn name(&self, address: &ConnectionAddr) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.0.as_ref() != Some(address) {
            named.1 += u64::from(named.0.is_some());
            named.0 = Some(address.clone());
        }
    }

    /// Opens a connection for commands.
    pub(super) async fn connect(&self) -> RedisResult<TopologyConnection> {
        if let Some(cluster) = &self.cluster {
            return Ok(TopologyConnection::Cluster(cluster.get_async_connection().await?));
        }
        Ok(TopologyConnection::One(self.open(&self.server().await?).await?))
    }

    /// Opens a connection for messages. In a cluster every node forwards the messages of all nodes.
    pub(super) async fn subscribe(&self, channel: &str, attempt: usize) -> RedisResult<PubSub> {
        let server = match self.mode {
            TopologyMode::Cluster => {
                let info = self.infos.get(attempt % self.infos.len().max(1)).ok_or_else(nowhere)?;
                self.client(info.clone())?
            }
            TopologyMode::Single | TopologyMode::Sentinel(_) => self.server().await?,
        };
        let mut messages = server.get_async_pubsub().await?;
        messages.subscribe(channel).await?;
        Ok(messages)
    }

    /// The server that accepts writes.
    async fn server(&self) -> RedisResult<Client> {
        let TopologyMode::Sentinel(name) = &self.mode else {
            return self.client(self.infos.first().ok_or_else(nowhere)?.clone());
        };
        let mut last = nowhere();
        for sentinel in &self.infos {
            match self.query_sentinel(sentinel, name).await {
                Ok(address) => {
                    self.name(&address);
                    let info = sentinel.clone().set_addr(address);
                    return self.client(info);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Queries one sentinel for the server's address. The user and password of the addresses are the server's;
    /// sentinels have their own.
    async fn query_sentinel(&self, sentinel: &ConnectionInfo, name: &str) -> RedisResult<ConnectionAddr> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(password) = &self.sentinel_password {
            settings = settings.set_password(password.expose_secret());
        }
        let info = sentinel.clone().set_redis_settings(settings);
        let mut connection = self.open(&self.client(info)?).await?;
        let question = redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).to_owned();
        let answer = connection.req_packed_command(&question).await?.extract_error()?;
        let (host, port): (String, u16) = redis::from_redis_value(answer)?;
        Ok(match sentinel.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => ConnectionAddr::Tcp(host, port),
            _ => return Err(nowhere()),
        })
    }

    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    async fn open(&self, client: &Client) -> RedisResult<MultiplexedConnection> {
        // `RedisConnection` enforces the timeout of a request, for all kinds of connections.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Topology({:?}, {} addresses)", self.mode, self.infos.len())
    }
}

/// Parses an address. Nagle's algorithm is turned off: it is on by default, and costs a third of the throughput.
fn read(url: &str) -> Result<ConnectionInfo, BadAddress> {
    let info = url.into_connection_info().map_err(|_| BadAddress::Url)?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

fn nowhere() -> RedisError {
    RedisError::from((ErrorKind::Io, "no address answers"))
}
