//! `store.redis`: the Redis that replicas share, its connection, and the duration of leases.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{RawSecretRef, SecretRef};
use super::validation::ValidationErrors;
use super::values::{MINUTE, SECOND, Span, words};

/// The Redis that replicas share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedisConfig {
    /// Reference to its URLs; present if it is the kind of store.
    pub url: Option<SecretRef>,
    /// Reference to the password of the server, if it is not in the URL.
    pub password: Option<SecretRef>,
    /// The topology.
    pub mode: RedisMode,
    /// Name under which the sentinels monitor the server.
    pub sentinel_name: String,
    /// Reference to the password of the sentinels, if they have one.
    pub sentinel_password: Option<SecretRef>,
    /// The trusted certificate authorities, in place of those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Prefix of every key.
    pub prefix: String,
    /// Reference to the secret that authenticates records.
    pub record_secret: Option<SecretRef>,
    /// Duration of a lease that is not renewed.
    #[serde(with = "Span::<SECOND, { 5 * MINUTE }>")]
    pub lease: Duration,
    /// Maximum time of a command.
    #[serde(with = "Span::<10, { 5 * SECOND }>")]
    pub timeout: Duration,
}

words! {
    /// Topology of the Redis.
    pub enum RedisMode {
        /// One server.
        Single = "single",
        /// Sentinels that monitor the server.
        Sentinel = "sentinel",
        /// Nodes of a cluster.
        Cluster = "cluster",
    } else "must be single, sentinel or cluster"
}

/// The Redis or Valkey that replicas share. Used when `store.kind` is `redis`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedis {
    /// Reference to the URL: `redis://` or, with TLS, `rediss://`, with `user:password@` before the host if needed. For
    /// sentinels and clusters: several URLs, separated by commas, with the same user and password. Required if `store.kind`
    /// is `redis`.
    url: Option<RawSecretRef>,
    /// Reference to the password of the server, if the URL contains none. It is not percent-encoded. Null: the one in the
    /// URL, or none.
    password: Option<RawSecretRef>,
    /// Topology: `single`, `sentinel` or `cluster`.
    mode: RedisMode,
    /// Name under which the sentinels monitor the server.
    sentinel_name: String,
    /// Reference to the password of the sentinels; the password in the URL is the server's. Null: none.
    sentinel_password: Option<RawSecretRef>,
    /// Path of a PEM file with the trusted certificate authorities. Null: those of the machine.
    ca_file: Option<PathBuf>,
    /// Prefix of every key. Replicas with the same prefix share their data.
    prefix: String,
    /// Reference to the secret that authenticates records; the same for all replicas. Null: records are not authenticated,
    /// so a writer to the Redis can change what jobgate reports.
    record_secret: Option<RawSecretRef>,
    /// Duration of the lease on a job. It is the longest time that the lease of a stopped replica delays the other replicas.
    #[serde(with = "Span::<SECOND, { 5 * MINUTE }>")]
    lease: Duration,
    /// Maximum time of a command, including the connection. After two failures in a row jobgate works without the Redis until
    /// it responds again.
    #[serde(with = "Span::<10, { 5 * SECOND }>")]
    timeout: Duration,
}

impl RawRedis {
    /// Checks the options; with `used`, those that a Redis needs must be set.
    pub(super) fn accept(self, used: bool, faults: &mut ValidationErrors) -> RedisConfig {
        let Self {
            url,
            password,
            mode,
            sentinel_name,
            sentinel_password,
            ca_file,
            prefix,
            record_secret,
            lease,
            timeout,
        } = self;
        if used && url.is_none() {
            faults.add("store.redis.url", "is missing: set { file: /path } or { env: NAME } with the URL");
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > 63 || !prefix.bytes().all(fits) {
            faults.add("store.redis.prefix", "must be 1 to 63 characters of A-Z, a-z, 0-9, -, _, . and :");
        }
        if mode == RedisMode::Sentinel && sentinel_name.is_empty() {
            faults.add(
                "store.redis.sentinel_name",
                "must be the name under which the sentinels monitor the server",
            );
        }
        RedisConfig {
            url: url.and_then(|url| url.accept("store.redis.url", faults)),
            password: password.and_then(|one| one.accept("store.redis.password", faults)),
            mode,
            sentinel_name,
            sentinel_password: sentinel_password
                .and_then(|one| one.accept("store.redis.sentinel_password", faults)),
            ca_file,
            prefix,
            record_secret: record_secret.and_then(|one| one.accept("store.redis.record_secret", faults)),
            lease,
            timeout,
        }
    }
}
