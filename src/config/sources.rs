//! `sources`: the upstream accounts, each with its credential, its budget and its limits.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::credential::{CredentialConfig, RawCredential, RawSecretRef};
use super::discovery::DiscoveryConfig;
use super::egress::{EgressConfig, RawEgress};
use super::server::ServerConfig;
use super::validation::ValidationErrors;
use super::values::{Count, GIB, HOUR, KIB, Size, Span, shown};
use crate::domain::duration;
use crate::domain::upstream::{Upstream, names_of};

/// One account of one upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceConfig {
    /// The kind of API.
    #[serde(serialize_with = "as_word")]
    pub upstream: Upstream,
    /// URL before the path of every request: http or https, without user, query or fragment. Its path has no trailing slash
    /// except for the root.
    #[serde(serialize_with = "shown")]
    pub base_url: Url,
    /// The credential.
    pub credential: CredentialConfig,
    /// Limits on the calls to the source.
    pub budget: BudgetConfig,
    /// What is listed.
    pub discovery: DiscoveryConfig,
    /// Whether plain HTTP to another machine is allowed.
    pub allow_plaintext: bool,
    /// Maximum total time of a status call; shorter than the server's `request_timeout`.
    #[serde(with = "Span::<1, HOUR>")]
    pub status_timeout: Duration,
    /// Maximum total time of a call for result rows.
    #[serde(with = "Span::<1, HOUR>")]
    pub rows_timeout: Duration,
    /// Maximum decoded body of a status call, in bytes.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_status_body: usize,
    /// Whether calls carry the header `traceparent`.
    pub propagate_trace: bool,
    /// Its outbound connections.
    #[serde(flatten)]
    pub egress: EgressConfig,
}

/// Limits on the calls to a source: fetches for callers, polls and retries together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Budget")]
pub struct BudgetConfig {
    /// Maximum number of calls in any second.
    #[serde(with = "Count::<1, 10_000>")]
    pub per_second: u32,
    /// Maximum number of calls in any hour.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub per_hour: u32,
    /// Percentage of the hourly calls that is reserved for callers and first fetches. Polls use the rest, spread over the
    /// hour.
    #[serde(with = "Count::<0, 90>")]
    pub caller_share: u32,
    /// Maximum number of concurrent calls.
    #[serde(with = "Count::<1, 1_000>")]
    pub concurrency: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { per_second: 10, per_hour: 5_000, caller_share: 20, concurrency: 8 }
    }
}

/// A kind of API, by the name in its profile.
#[derive(Clone, Copy)]
struct UpstreamName(Upstream);

impl<'de> Deserialize<'de> for UpstreamName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let named = Upstream::ALL.iter().find(|one| value.as_str() == Some(one.profile().name));
        named
            .copied()
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("must be {}", names_of("or", |_| true))))
    }
}

impl JsonSchema for UpstreamName {
    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<&str> = Upstream::ALL.iter().map(|one| one.profile().name).collect();
        schemars::json_schema!({ "type": "string", "enum": names })
    }
}

/// A source: one account of one upstream.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Source", extend("required" = ["upstream", "base_url", "credential"]))]
pub(super) struct RawSource {
    /// The kind of API.
    #[schemars(required)]
    upstream: Option<UpstreamName>,
    /// URL before the path of every request, without user, query or fragment: https, or http to a loopback address or with
    /// `allow_plaintext`.
    #[schemars(required)]
    base_url: Option<String>,
    /// The form of the credential, and the reference to the secret.
    #[schemars(required)]
    credential: Option<RawCredential>,
    /// Limits on the calls to the source: fetches for callers, polls and retries together.
    budget: BudgetConfig,
    /// What is listed.
    discovery: DiscoveryConfig,
    /// Whether `base_url` may be plain HTTP to another machine. The credential is then sent unencrypted.
    allow_plaintext: bool,
    /// Maximum total time of a status call, retries included. It must be shorter than `server.request_timeout`. A request
    /// waits at most two thirds of it for the budget; then the answer is `THROTTLED`.
    #[serde(with = "Span::<1, HOUR>")]
    status_timeout: Duration,
    /// Maximum total time of a call for result rows.
    #[serde(with = "Span::<1, HOUR>")]
    rows_timeout: Duration,
    /// Maximum decoded body of a status call, in bytes.
    #[serde(with = "Size::<KIB, GIB>")]
    max_status_body: usize,
    /// Whether calls have the header `traceparent`, so that the upstream can continue the trace.
    propagate_trace: bool,
    /// The proxy for the calls, such as `http://proxy.example:3128`, or `none`. Null: `HTTPS_PROXY`, `HTTP_PROXY` and
    /// `NO_PROXY` of the environment apply.
    proxy: Option<String>,
    /// Reference to `user:password` for `proxy`. Null: none is sent.
    proxy_credential: Option<RawSecretRef>,
    /// Path of a PEM file with the trusted certificate authorities, which replace all others. Null: the built-in ones and
    /// those of the machine.
    ca_file: Option<String>,
    /// Path of the PEM client certificate for mutual TLS; requires `client_key`. Null: none is sent.
    client_cert: Option<String>,
    /// Path of the PEM private key of the client certificate, without a passphrase; requires `client_cert`. Null: none.
    client_key: Option<String>,
}

impl Default for RawSource {
    fn default() -> Self {
        Self {
            upstream: None,
            base_url: None,
            credential: None,
            budget: BudgetConfig::default(),
            discovery: DiscoveryConfig::default(),
            allow_plaintext: false,
            status_timeout: Duration::from_secs(15),
            rows_timeout: Duration::from_mins(1),
            max_status_body: 1 << 20,
            propagate_trace: false,
            proxy: None,
            proxy_credential: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
        }
    }
}

impl RawSource {
    /// Validates the source at `path`, also against the server's limits.
    pub(super) fn accept(
        self,
        path: &str,
        server: &ServerConfig,
        faults: &mut ValidationErrors,
    ) -> Option<SourceConfig> {
        if self.status_timeout >= server.request_timeout {
            let limit = duration::format(server.request_timeout);
            let message = format!(
                "must be shorter than server.request_timeout ({limit}), or a request times out before its upstream call"
            );
            faults.add(format!("{path}.status_timeout"), message);
        }
        let upstream = self.upstream.map(|UpstreamName(upstream)| upstream);
        if upstream.is_none() {
            faults.add(format!("{path}.upstream"), format!("is missing: set {}", names_of("or", |_| true)));
        }
        self.discovery.check(&format!("{path}.discovery"), upstream, faults);
        let base_url =
            accept_url(self.base_url.as_deref(), &format!("{path}.base_url"), self.allow_plaintext, faults);
        let at = format!("{path}.credential");
        let credential = if let Some(credential) = self.credential {
            credential.accept(&at, upstream, faults)
        } else {
            faults.add(at, "is missing: set { bearer: { file: /path } } or { bearer: { env: NAME } }");
            None
        };
        let egress = RawEgress {
            proxy: self.proxy,
            proxy_credential: self.proxy_credential,
            ca_file: self.ca_file,
            client_cert: self.client_cert,
            client_key: self.client_key,
        };
        let egress = egress.accept(path, base_url.as_ref(), faults);
        Some(SourceConfig {
            upstream: upstream?,
            base_url: base_url?,
            credential: credential?,
            budget: self.budget,
            discovery: self.discovery,
            allow_plaintext: self.allow_plaintext,
            status_timeout: self.status_timeout,
            rows_timeout: self.rows_timeout,
            max_status_body: self.max_status_body,
            propagate_trace: self.propagate_trace,
            egress,
        })
    }
}

fn accept_url(
    text: Option<&str>,
    path: &str,
    allow_plaintext: bool,
    faults: &mut ValidationErrors,
) -> Option<Url> {
    let message = match text.map(Url::parse) {
        None => "is missing: set the URL of the API, such as https://acme.example/api",
        Some(Err(_)) => "must be a URL such as https://acme.example/api",
        Some(Ok(url)) if !matches!(url.scheme(), "http" | "https") => "must start with https://",
        Some(Ok(url)) if !url.username().is_empty() || url.password().is_some() => {
            "must not contain a user or a password: put the secret under credential"
        }
        Some(Ok(url)) if url.query().is_some() || url.fragment().is_some() => {
            "must not contain a query or a fragment: end it before the ? or #"
        }
        Some(Ok(url)) if url.scheme() == "http" && !allow_plaintext && !is_loopback(&url) => {
            "must start with https://, because plain HTTP exposes the credential; allow_plaintext: true permits it"
        }
        Some(Ok(mut url)) => {
            let bare = url.path().trim_end_matches('/').to_owned();
            url.set_path(&bare);
            return Some(url);
        }
    };
    faults.add(path, message);
    None
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn as_word<S: serde::Serializer>(upstream: &Upstream, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(upstream.profile().name)
}
