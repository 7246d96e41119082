//! What `/metrics` and `/readyz` say of the Redis that replicas share, where there is one.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Metrics;
use crate::ports::tier::{CommandOutcome, SPANS_MS, TierHealth};

impl Metrics {
    /// What whoever asks for the readiness may want to know beside it, as lines.
    pub(in crate::inbound) fn remarks(&self) -> String {
        self.jobs.store_health().tier.map(|tier| remark(&tier)).unwrap_or_default()
    }
}

fn remark(tier: &TierHealth) -> String {
    match tier.away_for {
        None if tier.connected => format!("redis: answers, {} replicas\n", tier.replicas),
        None => "redis: not connected\n".to_owned(),
        Some(away) => {
            format!("redis: away for {} s; answers come from memory and from the upstreams\n", away.as_secs())
        }
    }
}

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, tier: &TierHealth) -> fmt::Result {
    let away = tier.away_for.is_some();
    let seconds = tier.away_for.unwrap_or_default().as_secs_f64();
    let flag = |is: bool| f64::from(u8::from(is));
    for (name, help, value) in [
        (
            "jobgate_redis_up",
            "1 while a connection to Redis stands and is used.",
            flag(tier.connected && !away),
        ),
        ("jobgate_redis_breaker_open", "1 while Redis is left alone, because it did not answer.", flag(away)),
        ("jobgate_redis_away_seconds", "For how long it has been left alone; 0 while it is asked.", seconds),
        (
            "jobgate_redis_replicas",
            "Replicas that are there, by what was last known, this one included.",
            tier.replicas.into(),
        ),
        (
            "jobgate_redis_budget_fallback",
            "1 while this replica keeps to its even share of the budgets, because the common ones are out of reach.",
            flag(away),
        ),
    ] {
        out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    for (name, help, value) in [
        (
            "jobgate_redis_connections",
            "Connections made for commands; each but the first came after a loss.",
            tier.connections,
        ),
        ("jobgate_redis_failovers", "Times when sentinels named another server than before.", tier.failovers),
        ("jobgate_redis_emptied", "Times when Redis was found emptied.", tier.emptied),
        (
            "jobgate_redis_turn_takeovers",
            "Turns taken over from a replica that did not end them.",
            tier.takeovers,
        ),
        (
            "jobgate_redis_fence_refusals",
            "Writes that were refused because their turn was over.",
            tier.fence_refusals,
        ),
        (
            "jobgate_redis_own_share_calls",
            "Calls to sources counted against this replica's even share of a budget.",
            tier.own_share,
        ),
        ("jobgate_redis_feed_hints", "Hints heard from other replicas.", tier.hints),
        ("jobgate_redis_feed_gaps", "Times when hints may have been missed.", tier.gaps),
        ("jobgate_redis_feed_reconciles", "Times when everything followed was read again.", tier.reconciled),
    ] {
        let mut counter = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
    }
    let help = "Commands, by what became of them.";
    let mut commands = out.encode_descriptor("jobgate_redis_commands", help, None, MetricType::Counter)?;
    for (outcome, count) in CommandOutcome::ALL.iter().zip(tier.commands) {
        let labels = [("outcome", outcome.word())];
        commands.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
    }
    let ends = SPANS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64()).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = ends.zip(tier.durations).collect();
    let name = "jobgate_redis_command_duration_seconds";
    let help = "How long commands took that were sent.";
    let mut durations = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
    let count = tier.durations.iter().sum();
    durations.encode_histogram::<NoLabelSet>(tier.took.as_secs_f64(), count, &buckets, None)
}
