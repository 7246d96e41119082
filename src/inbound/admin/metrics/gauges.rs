//! The current gauges: sources, streams, followed jobs, the store, the shared store and the log.

use jiff::Timestamp;

use crate::domain::principal::Principal;
use crate::domain::source::SourceStatus;
use crate::inbound::admin::source_labels::{CREDENTIALS, HEALTHS};
use crate::inbound::streams::StreamRegistry;
use crate::jobs::{Jobs, SharedStoreHealth};
use crate::telemetry::log;
use crate::telemetry::meters::{GaugeSnapshot, Instrument as I, LabelValue};
use crate::telemetry::trace::provider::dropped;

/// Reads all of them.
pub(super) fn read(jobs: &Jobs, streams: &StreamRegistry, out: &mut GaugeSnapshot) {
    for source in jobs.sources(&Principal::local()) {
        read_source(&source.status, out);
    }
    let counts = streams.counts();
    for (transport, count) in
        [("websocket", counts.websocket), ("sse", counts.sse), ("multipart", counts.multipart)]
    {
        out.put_for(I::StreamsOpen, transport, amount(count as u64));
    }
    for (state, count) in jobs.followed_by_state() {
        out.put_for(I::JobsFollowed, state, amount(count));
    }
    let store = jobs.store_health();
    for (instrument, value) in [
        (I::CacheJobs, store.memory),
        (I::StoreDegraded, u64::from(store.degraded)),
        (I::StoreUnwritten, store.unwritten),
        (I::StoreDropped, store.dropped),
        (I::StoreDamaged, store.damaged),
        (I::StoreQuarantined, store.quarantined),
        (I::StoreSize, store.bytes),
        (I::StoreJobs, store.jobs),
    ] {
        out.put(instrument, amount(value));
    }
    if let Some(tier) = store.shared_store {
        read_shared_store(&tier, out);
    }
    let lines = log::counters();
    out.put(I::LogLinesSuppressed, amount(lines.suppressed));
    out.put(I::LogLinesDropped, amount(lines.dropped));
    for (signal, count) in dropped() {
        out.put_for(I::TelemetryDropped, signal, amount(count));
    }
}

fn read_source(source: &SourceStatus, out: &mut GaugeSnapshot) {
    let name = &source.name;
    for (instrument, value) in [
        (I::SourceBreakerOpen, Some(f64::from(u8::from(source.breaker_open)))),
        (I::SourceCallsInFlight, Some(source.budget.in_flight.into())),
        (I::SourceConcurrency, Some(source.budget.concurrency.into())),
        (I::SourceBudgetPerHour, Some(source.budget.per_hour.into())),
        (I::SourceBudgetLeft, Some(source.budget.left_this_hour.into())),
        (I::SourceThrottledUntil, source.throttled_until.map(seconds)),
        (I::CredentialExpiry, source.credential.expires_at.map(seconds)),
        (I::CredentialActiveSince, source.credential.active_since.map(seconds)),
    ] {
        if let Some(value) = value {
            out.put_for(instrument, name, value);
        }
    }
    for (state, word) in CREDENTIALS {
        let is = f64::from(u8::from(source.credential.state == state));
        out.put_of(I::CredentialState, [name.into(), word.into(), LabelValue::None], is);
    }
    for (health, word) in HEALTHS {
        let is = f64::from(u8::from(source.health == health));
        out.put_of(I::SourceHealth, [name.into(), word.into(), LabelValue::None], is);
    }
}

fn read_shared_store(shared_store: &SharedStoreHealth, out: &mut GaugeSnapshot) {
    let away = shared_store.unavailable_for.is_some();
    let flag = |is: bool| f64::from(u8::from(is));
    for (instrument, value) in [
        (I::RedisUp, flag(shared_store.connected && !away)),
        (I::RedisBreakerOpen, flag(away)),
        (I::RedisAway, shared_store.unavailable_for.unwrap_or_default().as_secs_f64()),
        (I::RedisReplicas, shared_store.replicas.into()),
        (I::RedisBudgetFallback, flag(away)),
        (I::RedisConnections, amount(shared_store.connections)),
        (I::RedisFailovers, amount(shared_store.failovers)),
        (I::RedisEmptied, amount(shared_store.emptied)),
        (I::RedisTakeovers, amount(shared_store.takeovers)),
        (I::RedisFenceRefusals, amount(shared_store.fence_refusals)),
        (I::RedisOwnShare, amount(shared_store.local_budget)),
        (I::RedisNotifications, amount(shared_store.notifications)),
        (I::RedisGaps, amount(shared_store.gaps)),
        (I::RedisReconciles, amount(shared_store.reconciled)),
    ] {
        out.put(instrument, value);
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn amount(count: u64) -> f64 {
    count as f64
}
