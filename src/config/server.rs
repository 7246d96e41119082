//! `server`: where jobgate listens, and how long and how much it lets a caller have.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::fault::Faults;
use super::network::Network;
use super::values::{Address, Count, GIB, HOUR, KIB, SECOND, Size, Span};

/// The shortest limit of an answer: an answer about 200 jobs fits.
const ANSWER: u64 = 64 * KIB;
/// The most memory of answers that can be given.
const TIB: u64 = 1024 * GIB;

/// Where jobgate listens, and how long and how much it lets a caller have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port of the public door: `/graphql` and `/v1/jobs`. Port 0 lets the system choose one.
    #[serde(with = "Address")]
    pub listen: SocketAddr,
    /// Address and port of the operators' door: `/livez`, `/readyz`, `/metrics`, `/status` and `/log-level`. Keep it off the public network.
    #[serde(with = "Address")]
    pub admin_listen: SocketAddr,
    /// Pages of other sites that may call the gateway, each as `https://host` or `https://host:port`, beside those of the
    /// gateway's own host or, when listening on loopback, of this machine.
    pub allowed_origins: Vec<String>,
    /// The proxies in front, each as an address or a range such as `10.0.0.0/8`. Only what they say in `Forwarded` or
    /// `X-Forwarded-For` is believed about where a request came from.
    pub trusted_proxies: Vec<Network>,
    /// With this the public door speaks TLS itself; without it something in front must.
    pub tls: Option<TlsConfig>,
    /// Longest time for one request, from its last header to the answer. Every source's `status_timeout` is shorter.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub request_timeout: Duration,
    /// How long a connection may be idle between two requests. Keep it above the idle time of a proxy in front, which would
    /// else reuse a connection that is just being closed.
    #[serde(with = "Span::<1, HOUR>")]
    pub idle_timeout: Duration,
    /// Longest time for all headers of a request, from the first byte; and from the start of a connection to that byte.
    #[serde(with = "Span::<1, HOUR>")]
    pub header_timeout: Duration,
    /// Longest time for a request's body, from the last header.
    #[serde(with = "Span::<1, HOUR>")]
    pub body_timeout: Duration,
    /// How many bytes a second of a body must come at the least, after the first two seconds.
    #[serde(with = "Size::<1, GIB>")]
    pub min_body_rate: usize,
    /// Longest time for which a peer may take nothing of what is sent to it.
    #[serde(with = "Span::<1, HOUR>")]
    pub write_timeout: Duration,
    /// Largest request body, in bytes. A GraphQL document with 200 references needs about 20KiB.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_body: usize,
    /// Longest answer, in bytes of JSON. A longer one is refused, since rows and texts of an upstream have any length.
    #[serde(with = "Size::<ANSWER, GIB>")]
    pub max_answer_bytes: usize,
    /// Memory of all answers that are being built or sent. When none is left, a further request is refused with 503.
    #[serde(with = "Size::<ANSWER, TIB>")]
    pub answer_memory: usize,
    /// Most connections open at the same time on the public door. Each one costs a file handle.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_connections: usize,
    /// Most requests answered at the same time; one more is turned away with 503. Whoever waits for a job holds one.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_requests: usize,
    /// How long to go on accepting after readiness was taken back, until everyone in front has heard. 5s behind a load
    /// balancer.
    #[serde(with = "Span::<0, HOUR>")]
    pub drain_delay: Duration,
    /// Time to finish what is under way when told to stop. Keep it below the grace period of whatever stops it.
    #[serde(with = "Span::<1, HOUR>")]
    pub drain_timeout: Duration,
    /// Whether to look for changes of the configuration file, and to put them in force as far as that goes without a
    /// restart. SIGHUP does so at any time.
    pub watch_config: bool,
}

/// Where the certificate of the public door is. Both files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Path of the certificate in PEM, with those between it and a known authority behind it.
    pub cert: PathBuf,
    /// Path of its private key in PEM, as PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

impl ServerConfig {
    /// Says whether only this machine can reach the public door.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if origin.contains('*') {
                faults.add(
                    format!("server.allowed_origins[{index}]"),
                    "must be one origin: a pattern is not matched, so list each origin by itself",
                );
            } else if !is_origin(origin) {
                faults.add(
                    format!("server.allowed_origins[{index}]"),
                    "must be an origin as a browser sends it, https://host or https://host:port",
                );
            }
        }
        let (public, admin) = (self.listen, self.admin_listen);
        let one_ip = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
        if public.port() != 0 && public.port() == admin.port() && one_ip {
            faults.add("server.admin_listen", "takes the port of server.listen: choose another port");
        }
        if self.answer_memory / 4 < self.max_answer_bytes {
            faults.add(
                "server.answer_memory",
                "must be at least 4 times server.max_answer_bytes, which is in memory twice while it is built",
            );
        }
        if self.drain_delay >= self.drain_timeout {
            faults.add(
                "server.drain_delay",
                "must be shorter than server.drain_timeout, which it is a part of",
            );
        }
    }
}

/// An origin is what a URL has before its path, with the scheme's own port left out.
fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization().eq_ignore_ascii_case(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_a_browser_sends_it() {
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
