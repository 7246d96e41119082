//! `server`: where jobgate listens, and how long and how much it lets a caller have.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::values::{Address, Count, GIB, HOUR, KIB, SECOND, Size, Span};

/// Where jobgate listens, and how long and how much it lets a caller have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port of the public door: `/graphql` and `/v1/jobs`. Port 0 lets the system choose one.
    #[serde(with = "Address")]
    pub listen: SocketAddr,
    /// Address and port of the operators' door: `/livez` and `/readyz`. Keep it off the public network.
    #[serde(with = "Address")]
    pub admin_listen: SocketAddr,
    /// Longest time for one request, from its last header to the answer. Every source's `status_timeout` is shorter.
    #[serde(with = "Span::<SECOND, HOUR>")]
    pub request_timeout: Duration,
    /// From the end of one request on a connection to the last header of the next: how long an idle connection is kept. Keep it
    /// above the idle time of a proxy in front, which would else reuse a connection that is just being closed.
    #[serde(with = "Span::<1, HOUR>")]
    pub header_timeout: Duration,
    /// Largest request body, in bytes. A GraphQL document with 200 references needs about 20KiB.
    #[serde(with = "Size::<KIB, GIB>")]
    pub max_body: usize,
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
}

impl ServerConfig {
    /// Says whether only this machine can reach the public door.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        let (public, admin) = (self.listen, self.admin_listen);
        let one_ip = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
        if public.port() != 0 && public.port() == admin.port() && one_ip {
            faults.add("server.admin_listen", "takes the port of server.listen: choose another port");
        }
        if self.drain_delay >= self.drain_timeout {
            faults.add(
                "server.drain_delay",
                "must be shorter than server.drain_timeout, which it is a part of",
            );
        }
    }
}
