//! `sources`: the accounts of upstreams that jobgate asks, each with its credential, its budget and its limits.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::credential::{CredentialConfig, RawCredential, RawSecretRef};
use super::egress::{EgressConfig, RawEgress};
use super::fault::Faults;
use super::server::ServerConfig;
use super::values::{Count, GIB, HOUR, KIB, Size, Span, shown, words};
use crate::domain::duration;
use crate::domain::source::Upstream;

/// One account of one upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceConfig {
    /// The kind of API behind it.
    #[serde(serialize_with = "as_word")]
    pub upstream: Upstream,
    /// What every request's path is appended to: http or https, no user, query or fragment. Its path has no slash at the end,
    /// unless it is nothing but one.
    #[serde(serialize_with = "shown")]
    pub base_url: Url,
    /// The credential.
    pub credential: CredentialConfig,
    /// What it may be asked.
    pub budget: BudgetConfig,
    /// Whether http is allowed to a host that is not this machine.
    pub allow_plaintext: bool,
    /// Longest time for one status call, all of it; shorter than the server's `request_timeout`.
    #[serde(with = "Span::<1, HOUR>")]
    pub status_timeout: Duration,
    /// Longest time for one page of rows, all of it.
    #[serde(with = "Span::<1, HOUR>")]
    pub rows_timeout: Duration,
    /// Largest decoded body of a status call, in bytes.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_status_body: usize,
    /// Largest decoded body of a page of rows, in bytes.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_rows_body: usize,
    /// Whether it is told which trace a call belongs to.
    pub propagate_trace: bool,
    /// How its calls leave.
    #[serde(flatten)]
    pub egress: EgressConfig,
}

/// What a source may be asked, by lookups, polls and retries together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Budget")]
pub struct BudgetConfig {
    /// Most calls in any second.
    #[serde(with = "Count::<1, 10_000>")]
    pub per_second: u32,
    /// Most calls in any hour.
    #[serde(with = "Count::<1, 10_000_000>")]
    pub per_hour: u32,
    /// The part of the hour's calls that is kept for callers and first lookups, in percent; polls share the rest, spread over
    /// the hour.
    #[serde(with = "Count::<0, 90>")]
    pub caller_share: u32,
    /// Most calls at the same time.
    #[serde(with = "Count::<1, 1_000>")]
    pub concurrency: u32,
    /// Longest wait of a lookup for its turn; after that the answer is "throttled".
    #[serde(with = "Span::<1, HOUR>")]
    pub max_wait: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            per_second: 10,
            per_hour: 5_000,
            caller_share: 20,
            concurrency: 8,
            max_wait: Duration::from_secs(10),
        }
    }
}

words! {
    /// A kind of API.
    pub(super) enum UpstreamWord {
        MindBridge = "mindbridge",
        Supermetrics = "supermetrics",
    } else "must be mindbridge or supermetrics"
}

/// A source: one account of one upstream.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Source", extend("required" = ["upstream", "base_url", "credential"]))]
pub(super) struct RawSource {
    /// The kind of API behind it: `mindbridge` or `supermetrics`.
    #[schemars(required)]
    upstream: Option<UpstreamWord>,
    /// What every request's path is appended to: http or https, no user, query or fragment.
    #[schemars(required)]
    base_url: Option<String>,
    /// Where the credential is to be found.
    #[schemars(required)]
    credential: Option<RawCredential>,
    /// What it may be asked, by lookups, polls and retries together.
    budget: BudgetConfig,
    /// Whether http is allowed to a host that is not this machine. The credential then crosses the network in the clear.
    allow_plaintext: bool,
    /// Longest time for one status call, all of it; shorter than `server.request_timeout`.
    #[serde(with = "Span::<1, HOUR>")]
    status_timeout: Duration,
    /// Longest time for one page of rows, all of it.
    #[serde(with = "Span::<1, HOUR>")]
    rows_timeout: Duration,
    /// Largest decoded body of a status call, in bytes.
    #[serde(with = "Size::<KIB, GIB>")]
    max_status_body: usize,
    /// Largest decoded body of a page of rows, in bytes. A row is often 1KiB, a page at most some ten thousand rows.
    #[serde(with = "Size::<KIB, GIB>")]
    max_rows_body: usize,
    /// Whether it is told, by the header `traceparent`, which trace a call belongs to.
    propagate_trace: bool,
    /// The proxy for its calls, such as `http://proxy.example:3128`, or `none`. Without it `HTTPS_PROXY`,
    /// `HTTP_PROXY` and `NO_PROXY` of the environment hold.
    proxy: Option<String>,
    /// Where `user:password` for the proxy are.
    proxy_credential: Option<RawSecretRef>,
    /// Path of a file with the authorities, in PEM form, that may vouch for the upstream in place of the built-in ones.
    ca_file: Option<String>,
    /// Path of the certificate, in PEM form, that is shown to an upstream that asks for one.
    client_cert: Option<String>,
    /// Path of the key of that certificate, in PEM form.
    client_key: Option<String>,
}

impl Default for RawSource {
    fn default() -> Self {
        Self {
            upstream: None,
            base_url: None,
            credential: None,
            budget: BudgetConfig::default(),
            allow_plaintext: false,
            status_timeout: Duration::from_secs(15),
            rows_timeout: Duration::from_mins(1),
            max_status_body: 1 << 20,
            max_rows_body: 64 << 20,
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
    /// Checks the source at `path` against itself and the server's limits.
    pub(super) fn accept(
        self,
        path: &str,
        server: &ServerConfig,
        faults: &mut Faults,
    ) -> Option<SourceConfig> {
        if self.status_timeout >= server.request_timeout {
            let limit = duration::format(server.request_timeout);
            let message = format!(
                "must be shorter than server.request_timeout ({limit}), or callers give up before the upstream does"
            );
            faults.add(format!("{path}.status_timeout"), message);
        }
        let upstream = self.upstream.map(|word| match word {
            UpstreamWord::MindBridge => Upstream::MindBridge,
            UpstreamWord::Supermetrics => Upstream::Supermetrics,
        });
        if upstream.is_none() {
            faults.add(format!("{path}.upstream"), "is missing: write mindbridge or supermetrics");
        }
        let base_url =
            accept_url(self.base_url.as_deref(), &format!("{path}.base_url"), self.allow_plaintext, faults);
        let at = format!("{path}.credential");
        let credential = if let Some(credential) = self.credential {
            credential.accept(&at, upstream == Some(Upstream::MindBridge), faults)
        } else {
            faults.add(at, "is missing: write { bearer: { file: /path } } or { bearer: { env: NAME } }");
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
            allow_plaintext: self.allow_plaintext,
            status_timeout: self.status_timeout,
            rows_timeout: self.rows_timeout,
            max_status_body: self.max_status_body,
            max_rows_body: self.max_rows_body,
            propagate_trace: self.propagate_trace,
            egress,
        })
    }
}

fn accept_url(text: Option<&str>, path: &str, allow_plaintext: bool, faults: &mut Faults) -> Option<Url> {
    let message = match text.map(Url::parse) {
        None => "is missing: write the address of the API, such as https://acme.example/api",
        Some(Err(_)) => "must be a URL such as https://acme.example/api",
        Some(Ok(url)) if !matches!(url.scheme(), "http" | "https") => "must start with https://",
        Some(Ok(url)) if !url.username().is_empty() || url.password().is_some() => {
            "must hold no user and no password: put the secret under credential"
        }
        Some(Ok(url)) if url.query().is_some() || url.fragment().is_some() => {
            "must hold neither a query nor a fragment: end it before the ? or #"
        }
        Some(Ok(url)) if url.scheme() == "http" && !allow_plaintext && !is_loopback(&url) => {
            "must start with https://, or the credential crosses the network in the clear; allow_plaintext: true permits it"
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
    serializer.serialize_str(upstream.name())
}
