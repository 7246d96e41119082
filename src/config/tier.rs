//! `store.redis`: the server that replicas share, how it is reached, and how long one of them holds a turn.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::{RawSecretRef, SecretRef};
use super::fault::Faults;
use super::store::StoreKind;
use super::values::{KIB, MIB, MINUTE, SECOND, Size, Span, words};

/// The server that replicas share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedisConfig {
    /// Where its URLs are to be found; present when it is the kind of store.
    pub url: Option<SecretRef>,
    /// Where the password of the server is to be found, if it is not in the URL.
    pub password: Option<SecretRef>,
    /// What stands there.
    pub mode: RedisMode,
    /// The name by which sentinels know the server.
    pub sentinel_name: String,
    /// Where the password of the sentinels is to be found, if they have one.
    pub sentinel_password: Option<SecretRef>,
    /// The authorities to trust, in place of those of the machine.
    pub ca_file: Option<PathBuf>,
    /// What every key begins with.
    pub prefix: String,
    /// Where the secret is to be found that records are authenticated with.
    pub record_secret: Option<SecretRef>,
    /// How long a turn lasts that is not renewed.
    #[serde(with = "Span::<SECOND, { 5 * MINUTE }>")]
    pub lease: Duration,
    /// How long one command may take.
    #[serde(with = "Span::<10, { 5 * SECOND }>")]
    pub timeout: Duration,
    /// The largest record.
    #[serde(with = "Size::<KIB, { 64 * MIB }>")]
    pub max_record: usize,
}

words! {
    /// What stands behind the URLs.
    pub enum RedisMode {
        /// One server.
        Single = "single",
        /// Sentinels that know where the server is.
        Sentinel = "sentinel",
        /// Some nodes of a cluster.
        Cluster = "cluster",
    } else "must be single, sentinel or cluster"
}

/// The Redis or Valkey that replicas share. Used when `store.kind` is `redis`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedis {
    /// Where the URL is to be found: `redis://` or, with TLS, `rediss://`, with `user:password@` before the host where needed.
    /// For sentinels and clusters several between commas, all with the same user and password.
    url: Option<RawSecretRef>,
    /// Where the password of the server is to be found, if the URL holds none: then it may stand apart and be of any characters.
    password: Option<RawSecretRef>,
    /// What stands there: `single`, `sentinel` or `cluster`.
    mode: RedisMode,
    /// The name by which sentinels know the server.
    sentinel_name: String,
    /// Where the password is to be found that sentinels are asked with, if they have one. That of the URL is the server's.
    sentinel_password: Option<RawSecretRef>,
    /// A file with the authorities to trust, in PEM form, in place of those of the machine.
    ca_file: Option<PathBuf>,
    /// What every key begins with. Replicas that are to be one have the same.
    prefix: String,
    /// Where the secret is to be found that records are authenticated with; the same for all replicas. Without one,
    /// whoever can write to the Redis can change what jobgate says of a job.
    record_secret: Option<RawSecretRef>,
    /// How long a replica that died may keep others from looking at a job it was just looking at.
    #[serde(with = "Span::<SECOND, { 5 * MINUTE }>")]
    lease: Duration,
    /// How long one command may take, connecting included. After two that take longer Redis is left alone for a moment.
    #[serde(with = "Span::<10, { 5 * SECOND }>")]
    timeout: Duration,
    /// The largest record that is shared, in bytes.
    #[serde(with = "Size::<KIB, { 64 * MIB }>")]
    max_record: usize,
}

impl RawRedis {
    pub(super) fn accept(self, kind: StoreKind, faults: &mut Faults) -> RedisConfig {
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
            max_record,
        } = self;
        if kind == StoreKind::Redis && url.is_none() {
            faults.add("store.redis.url", "is empty: write { file: /path } or { env: NAME } of its URL");
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > 63 || !prefix.bytes().all(fits) {
            faults.add("store.redis.prefix", "must be 1 to 63 of A-Z, a-z, 0-9, -, _, . and :");
        }
        if mode == RedisMode::Sentinel && sentinel_name.is_empty() {
            faults
                .add("store.redis.sentinel_name", "must be the name by which the sentinels know the server");
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
            max_record,
        }
    }
}
