//! Layer 1: the configuration. A [`Config`] is always valid, and all validation errors of a file are reported together.
//! It contains references to secrets and no secret; `outbound::credentials` reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::domain::id::SourceName;

mod cache;
mod clients;
mod credential;
mod credentials;
mod discovery;
mod egress;
mod environment;
mod file;
mod graphql;
mod jwt;
mod limits;
mod network;
mod poll;
mod proxies;
mod read;
mod removed;
mod renamed;
mod schema;
mod server;
mod shared_store;
mod sources;
mod store;
mod streams;
mod telemetry;
#[cfg(test)]
mod tests;
mod tree;
mod validation;
mod values;
mod watch_tokens;

pub use cache::CacheConfig;
pub use clients::ClientConfig;
pub use credential::{CredentialConfig, CredentialRef, SecretRef};
pub use credentials::CredentialsConfig;
pub use discovery::DiscoveryConfig;
pub use egress::{EgressConfig, ProxyConfig};
pub use environment::{Environment, FILE_VARIABLE, NotUnicode};
pub use graphql::{GraphqlConfig, IntrospectionConfig, PersistedQueries, TrustedDocuments};
pub use jwt::{IssuerConfig, JwksRef, LoginConfig, SigningAlgorithm, login_origin};
pub use limits::LimitsConfig;
pub use network::{Network, NetworkError};
pub use poll::PollConfig;
pub use proxies::{EnvironmentProxies, EnvironmentProxy, ProxyVariableError};
pub use server::{ServerConfig, TlsConfig};
pub use shared_store::{RedisConfig, RedisMode};
pub use sources::{BudgetConfig, SourceConfig};
pub use store::{StoreConfig, StoreKind, StoredRows};
pub use streams::StreamsConfig;
pub(crate) use telemetry::endpoint_fault;
pub use telemetry::{AccessLog, LogFormat, Ratio, TelemetryConfig, log_directives};
pub use validation::ValidationErrors;
pub use watch_tokens::WatchTokensConfig;

/// Every option with its default, commented for operators.
const DEFAULTS: &str = include_str!("../config/default.yaml");

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Listeners, and limits of time and size per request.
    pub server: ServerConfig,
    /// The upstream accounts by name; at least one.
    #[serde(serialize_with = "by_name")]
    pub sources: BTreeMap<SourceName, SourceConfig>,
    /// How secrets are reloaded while jobgate runs.
    pub credentials: CredentialsConfig,
    /// Clients with a key. Empty together with `jwt` only on a loopback address, where every caller has access.
    pub clients: Vec<ClientConfig>,
    /// Trusted issuers of signed tokens.
    pub jwt: Vec<IssuerConfig>,
    /// The signing key of watch tokens.
    pub watch_tokens: WatchTokensConfig,
    /// Limits on GraphQL documents.
    pub graphql: GraphqlConfig,
    /// Limits per client.
    pub limits: LimitsConfig,
    /// Lifetime, keep-alive and limits of streams.
    pub streams: StreamsConfig,
    /// Freshness and size of the cache.
    pub cache: CacheConfig,
    /// How often jobgate polls a watched job, and for how long.
    pub poll: PollConfig,
    /// The job store.
    pub store: StoreConfig,
    /// Logs, metrics and traces.
    pub telemetry: TelemetryConfig,
}

/// The configuration of jobgate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "jobgate")]
struct RawConfig {
    server: ServerConfig,
    /// The upstream accounts by name: 1 to 63 characters of a-z, 0-9, - and _. At least one is required.
    sources: BTreeMap<String, sources::RawSource>,
    credentials: CredentialsConfig,
    /// Clients that authenticate with a key. Without `clients` and `jwt`, jobgate listens on loopback only, and every caller
    /// has access to all sources.
    clients: Vec<clients::RawClient>,
    /// Trusted issuers of signed tokens (JWT).
    jwt: Vec<jwt::RawIssuer>,
    watch_tokens: watch_tokens::RawWatchTokens,
    graphql: GraphqlConfig,
    limits: LimitsConfig,
    streams: StreamsConfig,
    cache: CacheConfig,
    poll: PollConfig,
    store: store::RawStore,
    telemetry: telemetry::RawTelemetry,
}

impl Config {
    /// Reads the file at `path`, if there is one, over the defaults and under the environment's overrides. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// With all validation errors.
    pub fn load(path: Option<&Path>, env: &Environment) -> Result<Self, ValidationErrors> {
        let Some(path) = path else { return Self::from_yaml("", env) };
        Self::from_text(&file::read(path)?, path, env)
    }

    /// Reads the text of the file at `path` again, if it is a regular file. Blocks on the disk only.
    ///
    /// # Errors
    /// With what is wrong with the file.
    pub fn text_again(path: &Path) -> Result<String, ValidationErrors> {
        file::read_regular(path)
    }

    /// Reads the text that is in the file at `path`, as [`Config::load`] does.
    ///
    /// # Errors
    /// With all validation errors.
    pub fn from_text(text: &str, path: &Path, env: &Environment) -> Result<Self, ValidationErrors> {
        Self::read(text, &path.display().to_string(), env)
    }

    /// Reads the text of a file, as [`Config::load`] does.
    ///
    /// # Errors
    /// With all validation errors.
    pub fn from_yaml(text: &str, env: &Environment) -> Result<Self, ValidationErrors> {
        Self::read(text, "the configuration", env)
    }

    /// The JSON Schema of the file (draft 2020-12), with the defaults.
    pub fn json_schema() -> Value {
        schema::json_schema::<RawConfig>(&defaults())
    }

    /// The effective configuration, in the form of the file. It contains references to secrets and no secret.
    ///
    /// # Errors
    /// Never for a configuration made by this module: every option prints.
    pub fn effective(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    /// Whether authentication is disabled, because no clients and no issuers are configured.
    pub const fn auth_disabled(&self) -> bool {
        self.clients.is_empty() && self.jwt.is_empty()
    }

    /// Whether GraphQL introspection is allowed.
    pub fn allows_introspection(&self) -> bool {
        match self.graphql.introspection {
            IntrospectionConfig::Auto => self.server.is_local(),
            IntrospectionConfig::On => true,
            IntrospectionConfig::Off => false,
        }
    }

    fn read(text: &str, label: &str, env: &Environment) -> Result<Self, ValidationErrors> {
        let mut faults = ValidationErrors::default();
        let defaults = defaults();
        let mut tree = defaults.clone();
        let Some(mut written) = tree::parse(text, label, &mut faults) else { return Err(faults) };
        renamed::refuse(&mut written, &mut faults);
        removed::refuse(&mut written, &mut faults);
        tree::merge(&mut tree, written);
        tree::override_from(env, &mut tree, &mut faults);
        let names = tree.get("sources").and_then(Value::as_object);
        let names: BTreeSet<String> = names.into_iter().flat_map(|map| map.keys().cloned()).collect();
        let Some(raw) = read::read(tree, &defaults, &mut faults) else { return Err(faults) };
        let config = Self::accept(raw, &names, &mut faults);
        config.check_proxies(env, &mut faults);
        faults.or(config)
    }

    /// Checks the proxies of the environment for the URLs that have no configured proxy.
    fn check_proxies(&self, env: &Environment, faults: &mut ValidationErrors) {
        let proxies = EnvironmentProxies::read(env);
        let sources = self.sources.values().filter(|source| source.egress.proxy.is_none());
        let issuers = self.jwt.iter().filter_map(|issuer| match &issuer.jwks {
            JwksRef::Url(url) => Some(url),
            JwksRef::File(_) => None,
        });
        for url in sources.map(|source| &source.base_url).chain(issuers) {
            if let Err(fault) = proxies.for_url(url) {
                faults.add(fault.variable, fault.message);
            }
        }
    }

    fn accept(raw: RawConfig, names: &BTreeSet<String>, faults: &mut ValidationErrors) -> Self {
        raw.server.check(faults);
        raw.limits.check(faults);
        raw.streams.check(&raw.server, faults);
        raw.cache.check(faults);
        raw.poll.check(faults);
        if names.is_empty() {
            faults.add("sources", "is empty: configure at least one source, or run `jobgate demo`");
        }
        for name in names {
            if let Err(rule) = SourceName::parse(name) {
                faults.add(format!("sources.{name}"), format!("has a name that {rule}"));
            }
        }
        let mut sources = BTreeMap::new();
        for (name, source) in raw.sources {
            let path = format!("sources.{name}");
            let source = source.accept(&path, &raw.server, faults);
            if let Ok(name) = SourceName::parse(&name) {
                sources.extend(source.map(|source| (name, source)));
            }
        }
        if raw.clients.is_empty() && raw.jwt.is_empty() && !raw.server.is_local() {
            let message = "is not a loopback address, and no clients are configured: configure clients or jwt, or listen on 127.0.0.1";
            faults.add("server.listen", message);
        }
        let upstream = |name: &String| {
            sources.iter().find(|(known, _)| known.as_str() == name).map(|(_, source)| source.upstream)
        };
        let known = names.iter().map(|name| (name.clone(), upstream(name))).collect();
        let clients = clients::accept(raw.clients, &known, faults);
        let jwt = jwt::accept(raw.jwt, names, faults);
        let store = raw.store.accept(faults);
        let watch_tokens = raw.watch_tokens.accept(faults);
        let telemetry = raw.telemetry.accept(faults);
        let RawConfig { server, credentials, graphql, limits, streams, cache, poll, .. } = raw;
        Self {
            server,
            sources,
            credentials,
            clients,
            jwt,
            watch_tokens,
            graphql,
            limits,
            streams,
            cache,
            poll,
            store,
            telemetry,
        }
    }
}

/// The compiled-in file. An error in it fails the first test.
fn defaults() -> Value {
    tree::parse(DEFAULTS, "the defaults", &mut ValidationErrors::default()).unwrap_or_default()
}

fn by_name<S: Serializer>(
    sources: &BTreeMap<SourceName, SourceConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sources.iter().map(|(name, source)| (name.as_str(), source)))
}
