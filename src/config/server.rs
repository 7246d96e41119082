//! `server`: listeners, and limits of time and size per request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::network::Network;
use super::validation::ValidationErrors;
use super::values::{Address, Count, GIB, HOUR, KIB, MIB, SECOND, Size, Span};

/// Largest configurable memory for answers.
const TIB: u64 = 1024 * GIB;

/// Listeners, and limits of time and size per request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port of the public listener: `/graphql`, `/v1/jobs` and the live page. Port 0 selects a free port. An
    /// address other than loopback requires `clients` or `jwt`.
    #[serde(with = "Address")]
    pub listen: SocketAddr,
    /// Address and port of the admin listener: `/livez`, `/readyz`, `/metrics`, `/status` and `/log-level`. Do not expose it
    /// to the public network.
    #[serde(with = "Address")]
    pub admin_listen: SocketAddr,
    /// Origins of web pages that may call the gateway, each `https://host` or `https://host:port`. The gateway's own origin
    /// is always allowed and, when it listens on loopback, every origin of this machine. Requests without an `Origin` header
    /// are not affected.
    pub allowed_origins: Vec<String>,
    /// Addresses of reverse proxies, or ranges such as `10.0.0.0/8`. `Forwarded` and `X-Forwarded-For` are used only in
    /// requests from these addresses.
    pub trusted_proxies: Vec<Network>,
    /// Certificate and key for TLS on the public listener. Null: plain HTTP; terminate TLS in front of jobgate.
    pub tls: Option<TlsConfig>,
    /// Maximum time from a request's last header to the headers of its answer. Streams are not limited by it. The body must
    /// arrive in half of it. Every source's `status_timeout` must be shorter.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub request_timeout: Duration,
    /// Maximum idle time of a connection between two requests. Keep it above the idle timeout of a reverse proxy, which
    /// otherwise reuses connections that jobgate closes. Also the maximum time for which a peer accepts no data while jobgate
    /// sends.
    #[serde(with = "Span::<1, HOUR>")]
    pub idle_timeout: Duration,
    /// Maximum time from the first byte of a request to its last header. Also the maximum time from the start of a connection
    /// to the first byte. A WebSocket client must send `connection_init` in half of it.
    #[serde(with = "Span::<1, HOUR>")]
    pub header_timeout: Duration,
    /// Minimum rate of a request body, in bytes per second, on average after the first two seconds.
    #[serde(with = "Size::<1, GIB>")]
    pub min_body_rate: usize,
    /// Maximum size of a request body, in bytes. A GraphQL document with 200 references needs about 20KiB. A message of a
    /// WebSocket client has at most a quarter of it, or 16KiB if that is more.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_body: usize,
    /// Memory for all answers that are being built or sent, in bytes. Without free memory a request is refused with 503. An
    /// answer of more than a sixteenth of it, in JSON, is refused with `ANSWER_TOO_LARGE`.
    #[serde(with = "Size::<MIB, TIB>")]
    pub answer_memory: usize,
    /// Maximum number of open connections on the public listener. Each uses one file descriptor; if the limit of the process
    /// is too low, fewer connections are served, with a warning in the log.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_connections: usize,
    /// Maximum number of concurrent requests of all clients. Further requests are refused with 503. A request that waits for
    /// a job counts.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_requests: usize,
    /// How long jobgate accepts requests after `/readyz` reports not ready. Use 5s behind a load balancer, which needs time
    /// to stop sending requests.
    #[serde(with = "Span::<0, HOUR>")]
    pub drain_delay: Duration,
    /// Maximum time of a graceful shutdown, `drain_delay` included. Keep it below the grace period of the process manager.
    #[serde(with = "Span::<1, HOUR>")]
    pub drain_timeout: Duration,
    /// Whether changes of the configuration file are applied without a restart where possible. SIGHUP applies them in any
    /// case.
    pub watch_config: bool,
}

/// Certificate and key for TLS on the public listener. Both files are reloaded when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Path of the PEM certificate, followed by its intermediate certificates.
    pub cert: PathBuf,
    /// Path of the PEM private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl ServerConfig {
    /// Whether the public listener is on a loopback address.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    pub(super) fn check(&self, faults: &mut ValidationErrors) {
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if origin.contains('*') {
                faults.add(
                    format!("server.allowed_origins[{index}]"),
                    "must be one origin: patterns are not supported, so list each origin",
                );
            } else if !is_origin(origin) {
                faults.add(
                    format!("server.allowed_origins[{index}]"),
                    "must be an origin, https://host or https://host:port",
                );
            }
        }
        let (public, admin) = (self.listen, self.admin_listen);
        let one_ip = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
        if public.port() != 0 && public.port() == admin.port() && one_ip {
            faults.add("server.admin_listen", "uses the port of server.listen: choose another port");
        }
        if self.drain_delay >= self.drain_timeout {
            faults.add("server.drain_delay", "must be shorter than server.drain_timeout, which includes it");
        }
    }
}

/// An origin is the part of a URL before its path, without the default port of the scheme.
fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization().eq_ignore_ascii_case(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_origin_has_a_scheme_a_host_and_no_path() {
        for (text, fits) in [
            ("https://app.example", true),
            ("HTTPS://App.Example", true),
            ("http://app.example:8080", true),
            ("http://[::1]:3000", true),
            ("https://app.example/", false),
            ("https://app.example:443", false),
            ("https://user@app.example", false),
            ("app.example", false),
            ("ftp://app.example", false),
            ("*", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_origin(text), fits, "{text}");
        }
    }
}
