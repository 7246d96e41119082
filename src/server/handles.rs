//! Distributes the file handles of the process: each connection of a client uses one, and the rest must be sufficient
//! for the connections of operators, upstreams, the store and files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Reserved for everything that is not a connection to a client or to a source: the store, Redis, the collector,
/// issuers' keys, the files of secrets and their watch, and the runtime's own.
const OTHER: usize = 64;
/// Connections of operators, up to an eighth of all handles.
const ADMIN: std::ops::RangeInclusive<usize> = 8..=256;
/// If the limit is so low that nothing would be left, clients get this part of it nevertheless.
const LEAST_PART: usize = 4;

/// Concurrent connections, by listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionShares {
    pub(super) public: usize,
    pub(super) admin: usize,
}

/// Raises the soft limit to the hard one, and returns the current limit; none if there is no limit.
pub(super) fn raise() -> Option<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = match raised {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "file descriptor limit not raised");
            current
        }
    };
    Some(usize::try_from(limit?).unwrap_or(usize::MAX))
}

/// Distributes the handles, and warns if the configured connections do not fit.
pub(super) fn share(config: &Config, limit: Option<usize>) -> ConnectionShares {
    let sources = config.sources.values();
    let upstream: usize = sources.map(|source| source.budget.concurrency as usize).sum();
    let configured = config.server.max_connections;
    let shares = shares(configured, upstream, limit);
    if let Some(limit) = limit.filter(|_| shares.public < configured) {
        let served = shares.public;
        tracing::warn!(
            configured,
            served,
            limit,
            "file descriptor limit below server.max_connections; fewer connections are served"
        );
    }
    shares
}

fn shares(configured: usize, upstream: usize, limit: Option<usize>) -> ConnectionShares {
    let limit = limit.unwrap_or(usize::MAX);
    let admin = (limit / 8).clamp(*ADMIN.start(), *ADMIN.end());
    let left = limit.saturating_sub(OTHER + admin).saturating_sub(upstream);
    ConnectionShares { public: configured.min(left.max(limit / LEAST_PART).max(1)), admin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_connections_get_the_remaining_file_descriptors() {
        for (configured, upstream, limit, public, admin) in [
            (10_000, 16, None, 10_000, 256),
            (10_000, 16, Some(20_000), 10_000, 256),
            (10_000, 16, Some(4_096), 4_096 - 64 - 256 - 16, 256),
            (10_000, 16, Some(256), 256 - 64 - 32 - 16, 32),
            (100, 16, Some(256), 100, 32),
            (10_000, 500, Some(256), 64, 32),
            (10_000, 16, Some(64), 16, 8),
        ] {
            let found = shares(configured, upstream, limit);
            assert_eq!(found, ConnectionShares { public, admin }, "{configured} {upstream} {limit:?}");
        }
    }
}
