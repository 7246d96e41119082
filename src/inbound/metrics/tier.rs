//! What `/metrics` and `/readyz` say of the Redis that replicas share, where there is one.

use super::{I, Metrics, Readings, amount};
use crate::jobs::TierHealth;

impl Metrics {
    /// What whoever asks for the readiness may want to know beside it, as lines.
    pub(in crate::inbound) fn remarks(&self) -> String {
        self.jobs.store_health().tier.map(|tier| remark(&tier)).unwrap_or_default()
    }
}

fn remark(tier: &TierHealth) -> String {
    match tier.away_for {
        None if tier.connected => format!("redis: available, {} replicas\n", tier.replicas),
        None => "redis: not connected\n".to_owned(),
        Some(away) => {
            format!("redis: unavailable for {} s; running standalone\n", away.as_secs())
        }
    }
}

pub(super) fn read(tier: &TierHealth, out: &mut Readings) {
    let away = tier.away_for.is_some();
    let flag = |is: bool| f64::from(u8::from(is));
    for (instrument, value) in [
        (I::RedisUp, flag(tier.connected && !away)),
        (I::RedisBreakerOpen, flag(away)),
        (I::RedisAway, tier.away_for.unwrap_or_default().as_secs_f64()),
        (I::RedisReplicas, tier.replicas.into()),
        (I::RedisBudgetFallback, flag(away)),
        (I::RedisConnections, amount(tier.connections)),
        (I::RedisFailovers, amount(tier.failovers)),
        (I::RedisEmptied, amount(tier.emptied)),
        (I::RedisTakeovers, amount(tier.takeovers)),
        (I::RedisFenceRefusals, amount(tier.fence_refusals)),
        (I::RedisOwnShare, amount(tier.own_share)),
        (I::RedisHints, amount(tier.hints)),
        (I::RedisGaps, amount(tier.gaps)),
        (I::RedisReconciles, amount(tier.reconciled)),
    ] {
        out.put(instrument, value);
    }
}
