//! What `/metrics` and `/readyz` report about the Redis that replicas share, if there is one.

use super::{GaugeSnapshot, I, MetricsEndpoint, amount};
use crate::jobs::SharedStoreHealth;

impl MetricsEndpoint {
    /// Additional lines in the response to a readiness probe.
    pub(in crate::inbound) fn remarks(&self) -> String {
        self.jobs.store_health().shared_store.map(|shared_store| remark(&shared_store)).unwrap_or_default()
    }
}

fn remark(shared_store: &SharedStoreHealth) -> String {
    match shared_store.unavailable_for {
        None if shared_store.connected => format!("redis: available, {} replicas\n", shared_store.replicas),
        None => "redis: not connected\n".to_owned(),
        Some(away) => {
            format!("redis: unavailable for {} s; running standalone\n", away.as_secs())
        }
    }
}

pub(super) fn read(shared_store: &SharedStoreHealth, out: &mut GaugeSnapshot) {
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
