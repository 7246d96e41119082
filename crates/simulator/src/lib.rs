//! Simulated upstreams: `MindBridgeTenant` and Supermetrics on local sockets, with jobs that follow a script.
//!
//! A product feature (`jobgate simulate`, `jobgate demo`), and the fixture and oracle of the tests. It depends on nothing
//! of the gateway, so that a misunderstanding of an upstream cannot hide in shared code.
//! `docs/simulator.md` describes its answers, and every anomaly that it can produce.

mod control;
mod fault;
mod handle;
mod listener;
mod mindbridge;
mod progress;
mod record;
mod reply;
mod request;
mod scenario;
mod supermetrics;
#[cfg(test)]
mod tests;
mod world;

use std::{fmt, io, net::SocketAddr, sync::Arc};

use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};

use self::world::SimWorld;
pub use self::{
    fault::{Edit, FaultKind, MadeUpAnswer, MadeUpBody, RetryAfter, SimFault, Splice},
    handle::{Handle, NoSuchJob, SimJob, SimStep},
    record::{Auth, RecordedRequest},
    scenario::{
        Column, ColumnKind, MindBridgeJob, MindBridgeStep, MindBridgeTenant, QueryError, Scenario,
        ScenarioError, ScenarioFault, SimList, SimQueryMeta, SimResultMeta, SimRows, SimUserInfo,
        SupermetricsAccount, SupermetricsJob, SupermetricsStep,
    },
};

/// Which of the two simulated upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimUpstream {
    /// `MindBridgeTenant` async results.
    MindBridge,
    /// Supermetrics query status.
    Supermetrics,
}

impl SimUpstream {
    const ALL: [Self; 2] = [Self::MindBridge, Self::Supermetrics];

    /// The word used in scenario files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MindBridge => "mindbridge",
            Self::Supermetrics => "supermetrics",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::MindBridge => 0,
            Self::Supermetrics => 1,
        }
    }
}

/// The endpoint of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `MindBridgeTenant`: one async result.
    One,
    /// `MindBridgeTenant`: the paged query of the collection by ids.
    Query,
    /// Supermetrics: the status call.
    Status,
    /// The list: `MindBridgeTenant`'s paged query by anything but ids, or Supermetrics' query history.
    List,
    /// A path of neither upstream.
    Unexpected,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 5] = [Self::One, Self::Query, Self::Status, Self::List, Self::Unexpected];

    /// The word used in scenario files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Query => "query",
            Self::Status => "status",
            Self::List => "list",
            Self::Unexpected => "unexpected",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::One => 0,
            Self::Query => 1,
            Self::Status => 2,
            Self::List => 3,
            Self::Unexpected => 4,
        }
    }
}

/// The addresses of the two simulated upstreams. Port 0 takes a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The `MindBridgeTenant` listener.
    pub mindbridge: SocketAddr,
    /// The Supermetrics listener.
    pub supermetrics: SocketAddr,
}

impl Addresses {
    /// Two free ports on the loopback address.
    pub fn ephemeral() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { mindbridge: any, supermetrics: any }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scenario is not valid.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A listener could not be bound.
    #[error("the simulated {} cannot listen on {address}: {source}", upstream.as_str())]
    Listen {
        /// The upstream.
        upstream: SimUpstream,
        /// The requested address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// Two running simulated upstreams. Dropping it closes both listeners and all their connections.
///
/// `Display` prints their addresses, the number of their jobs and some ids; no credential.
#[derive(Debug)]
pub struct Simulator {
    handle: Handle,
    bound: Addresses,
    tasks: [JoinHandle<()>; 2],
}

impl Simulator {
    /// Binds both listeners and serves them. The scripts begin now.
    ///
    /// # Errors
    /// When the scenario is not valid or an address cannot be bound; then nothing runs.
    pub async fn start(scenario: Scenario, addresses: Addresses) -> Result<Self, StartError> {
        scenario.check()?;
        let mindbridge = bind(SimUpstream::MindBridge, addresses.mindbridge).await?;
        let supermetrics = bind(SimUpstream::Supermetrics, addresses.supermetrics).await?;
        let bound = Addresses { mindbridge: mindbridge.1, supermetrics: supermetrics.1 };
        let world = Arc::new(SimWorld::new(scenario));
        #[expect(
            clippy::disallowed_methods,
            reason = "independent of the gateway's layers, the spawner included"
        )]
        let serve =
            |upstream, listener| tokio::spawn(listener::serve(Arc::clone(&world), upstream, listener));
        let tasks =
            [serve(SimUpstream::MindBridge, mindbridge.0), serve(SimUpstream::Supermetrics, supermetrics.0)];
        Ok(Self { handle: Handle::new(world), bound, tasks })
    }

    /// The base URL to configure for the `MindBridgeTenant` source, `/api` included.
    pub fn mindbridge_url(&self) -> String {
        format!("http://{}{}", self.bound.mindbridge, mindbridge::PREFIX)
    }

    /// The base URL to configure for the Supermetrics source, `/enterprise/v2` included.
    pub fn supermetrics_url(&self) -> String {
        format!("http://{}{}", self.bound.supermetrics, supermetrics::PREFIX)
    }

    /// The addresses in use.
    pub const fn addresses(&self) -> Addresses {
        self.bound
    }

    /// The control surface.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Closes both listeners and all their connections, and waits until that is done.
    pub async fn stop(mut self) {
        for task in &mut self.tasks {
            task.abort();
            // These tasks end only when they are aborted, so their result is not needed.
            drop(task.await);
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Display for Simulator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (upstream, url) in
            SimUpstream::ALL.into_iter().zip([self.mindbridge_url(), self.supermetrics_url()])
        {
            let ids = self.handle.job_ids(upstream);
            writeln!(out, "simulated {:<12} {url}  ({} jobs now)", upstream.as_str(), ids.len())?;
            for id in ids.iter().take(10) {
                writeln!(out, "  {id}")?;
            }
        }
        Ok(())
    }
}

async fn bind(upstream: SimUpstream, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { upstream, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
