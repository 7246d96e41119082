//! Converts a configuration to the settings of each part: used when the parts are built, and when another configuration
//! is applied.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::{Config, DiscoveryConfig, ServerConfig, SourceConfig, login_origin};
use crate::domain::id::SourceName;
use crate::domain::pace::PollIntervals;
use crate::domain::sweep::DiscoveryRules;
use crate::inbound::client_limits::ClientSettings;
use crate::inbound::graphql::document::limits::DocumentLimits;
use crate::inbound::http::origins::Origins;
use crate::inbound::page::PageLogin;
use crate::inbound::streams::StreamSettings;
use crate::jobs::{FollowSettings, FreshnessRules};
use crate::outbound::http::{BaseUrl, BaseUrlError};
use crate::outbound::upstreams::SourceSettings;

/// The share of a request's deadline for which an answer may wait for an upstream: the rest is for serializing it.
const WAITING_SHARE: f64 = 0.9;
/// How long "no such job" is cached, so that a wrong id does not cost one upstream call per request.
pub(super) const NOT_FOUND_CACHED_FOR: Duration = Duration::from_secs(5);

/// A `connection_init` with the longest credential has at most this size, in bytes.
const LARGEST_INIT: usize = 16 * 1024;
/// How much longer than the time between two pings a pong may take. With the default interval a machine may sleep for a
/// minute: that is less than two pongs take.
const PONG_MARGIN: Duration = Duration::from_secs(10);

/// The maximum time for the body of a request: the rest of its time is for the answer.
pub(super) fn body_timeout(server: &ServerConfig) -> Duration {
    server.request_timeout / 2
}

/// The maximum time for which a peer accepts no data: as long as it may send none.
pub(super) const fn write_timeout(server: &ServerConfig) -> Duration {
    server.idle_timeout
}

/// The maximum size of an answer: several answers of this size fit into the memory at the same time.
pub(super) const fn max_answer_bytes(server: &ServerConfig) -> usize {
    server.answer_memory / 16
}

/// The maximum size of a message of a WebSocket client. It contains one document, or the credential of the client.
pub(super) fn max_message(server: &ServerConfig) -> usize {
    (server.max_body / 4).max(LARGEST_INIT)
}

/// The maximum decoded body of a call for rows: a larger page could not be cached.
pub(super) const fn max_rows_body(config: &Config) -> usize {
    config.cache.rows_max_bytes
}

pub(super) fn source(
    name: &SourceName,
    source: &SourceConfig,
    max_rows_body: usize,
) -> Result<SourceSettings, BaseUrlError> {
    Ok(SourceSettings {
        name: name.clone(),
        base_url: BaseUrl::new(source.base_url.clone())?,
        per_second: source.budget.per_second,
        per_hour: source.budget.per_hour,
        caller_share: source.budget.caller_share,
        concurrency: source.budget.concurrency,
        // the rest is for the call itself
        max_wait: source.status_timeout * 2 / 3,
        status_timeout: source.status_timeout,
        rows_timeout: source.rows_timeout,
        max_status_body: source.max_status_body,
        max_rows_body,
        discovery: discovery(&source.discovery),
        data_sources: source.discovery.data_sources.clone(),
        propagate_trace: source.propagate_trace,
    })
}

pub(super) fn freshness(config: &Config) -> FreshnessRules {
    FreshnessRules {
        fresh_for: config.cache.fresh_for,
        missing_for: NOT_FOUND_CACHED_FOR,
        rerun_check: config.cache.terminal_revalidate_interval,
        answer_within: config.server.request_timeout.mul_f64(WAITING_SHARE),
    }
}

pub(super) const fn follow(config: &Config) -> FollowSettings {
    FollowSettings {
        pace: PollIntervals { fastest: config.poll.min_interval, slowest: config.poll.max_interval },
        unsubscribe_grace: config.poll.unsubscribe_grace,
        missing_for: config.poll.missing_for,
        unknown_for: config.poll.unknown_for,
        at_most: config.poll.max_duration,
        verify_interval: config.poll.verify_interval,
    }
}

pub(super) fn streams(config: &Config) -> StreamSettings {
    let streams = &config.streams;
    StreamSettings {
        // both limit a peer that is not identified yet
        init_timeout: config.server.header_timeout / 2,
        ping_interval: streams.ping_interval,
        pong_timeout: streams.ping_interval + PONG_MARGIN,
        // sooner than a ping, since nothing confirms that it arrived
        heartbeat: streams.ping_interval * 3 / 5,
        max_age: streams.max_age,
        max_streams_per_client: streams.max_streams_per_client,
        max_operations_per_client: streams.max_operations_per_client,
        max_message: max_message(&config.server),
        origins: origins(config),
        drain_window: streams.drain_window,
        ..StreamSettings::default()
    }
}

fn discovery(discovery: &DiscoveryConfig) -> Option<DiscoveryRules> {
    let max_jobs = usize::try_from(discovery.max_jobs).unwrap_or(usize::MAX);
    discovery.enabled.then_some(DiscoveryRules { since: discovery.since, max_jobs })
}

pub(super) fn origins(config: &Config) -> Origins {
    Origins { allowed: config.server.allowed_origins.clone(), loopback: config.server.is_local() }
}

/// The issuers at which people sign in on the live page.
pub(super) fn page_logins(config: &Config) -> Vec<PageLogin> {
    let with_login = config.jwt.iter().filter_map(|issuer| {
        let login = issuer.login.as_ref()?;
        Some(PageLogin {
            issuer: issuer.issuer.clone(),
            origin: login_origin(&issuer.issuer)?,
            client_id: login.client_id.clone(),
            scopes: login.scopes.join(" "),
        })
    });
    with_login.collect()
}

pub(super) fn clients(config: &Config) -> ClientSettings {
    let limits = &config.limits;
    ClientSettings {
        per_second: NonZeroU32::new(limits.requests_per_second).unwrap_or(NonZeroU32::MIN),
        burst: NonZeroU32::new(limits.burst).unwrap_or(NonZeroU32::MIN),
        concurrent: limits.concurrent_requests,
        jobs_watched: limits.jobs_watched,
    }
}

pub(super) fn documents(config: &Config) -> DocumentLimits {
    let graphql = &config.graphql;
    DocumentLimits {
        max_cost: graphql.max_cost as u64,
        max_answer_cost: graphql.max_answer_cost as u64,
        introspection: config.allows_introspection(),
        ..DocumentLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    /// The settings that follow from an option of another name.
    fn derived(sections: &str) -> [String; 9] {
        let yaml = format!(
            "sources: {{ a: {{ upstream: mindbridge, base_url: 'https://a.example', credential: {{ bearer: {{ env: T }} }}, \
             status_timeout: 9s }} }}\n{sections}"
        );
        let config = Config::from_yaml(&yaml, &Environment::default()).unwrap();
        let (name, of) = config.sources.iter().next().unwrap();
        let source = source(name, of, max_rows_body(&config)).unwrap();
        let streams = streams(&config);
        let times = [
            body_timeout(&config.server),
            write_timeout(&config.server),
            source.max_wait,
            streams.init_timeout,
            streams.pong_timeout,
            streams.heartbeat,
        ];
        let sizes = [max_answer_bytes(&config.server), source.max_rows_body, streams.max_message];
        let [body, write, wait, init, pong, heartbeat] = times.map(|time| format!("{time:?}"));
        let [answer, rows, message] = sizes.map(|size| size.to_string());
        [body, write, wait, init, pong, heartbeat, answer, rows, message]
    }

    #[test]
    fn settings_without_an_option_follow_another_option() {
        assert_eq!(
            derived(""),
            ["15s", "75s", "6s", "5s", "35s", "15s", "16777216", "67108864", "65536"].map(str::to_owned)
        );
        let sections = "server: { request_timeout: 10s, idle_timeout: 10m, header_timeout: 3s, answer_memory: 1MiB, max_body: 80KiB }\n\
                        streams: { ping_interval: 10s }\ncache: { rows_max_bytes: 1MiB }";
        assert_eq!(
            derived(sections),
            ["5s", "600s", "6s", "1.5s", "20s", "6s", "65536", "1048576", "20480"].map(str::to_owned)
        );
        let [.., message] = derived("server: { max_body: 1KiB }");
        assert_eq!(message, "16384", "a connection_init fits in any case");
    }
}
