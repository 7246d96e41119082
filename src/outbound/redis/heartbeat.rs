//! Sends a heartbeat once a second and counts the other replicas; detects that Redis was unavailable or was emptied,
//! and starts the repair; and logs at the start which settings of this Redis are unsuitable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::repair::Reconciliation;
use super::replica::RedisReplica;
use super::stats;

/// The interval of heartbeats, and how long a replica without one counts as a member.
const EVERY: Duration = Duration::from_secs(1);
pub(super) const MISSED_AFTER: &[u8] = b"5000";
/// The number of replicas is the maximum of this many heartbeats: after an outage the first replica does not see the
/// others yet, and a share that is too large costs more than one that is too small for a while.
const REMEMBERED: usize = 10;
/// The oldest supported server version.
const OLDEST: (u32, u32) = (6, 0);

/// The numbers of replicas of the last heartbeats that were answered.
#[derive(Debug, Default)]
struct Heartbeat(VecDeque<u32>);

impl Heartbeat {
    /// Adds a number of replicas, and returns the number to use.
    fn count(&mut self, there: u32) -> u32 {
        self.0.push_back(there);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
        self.0.iter().copied().max().unwrap_or(1).max(1)
    }
}

/// Sends heartbeats for ever, and requests a reconciliation after an outage.
pub(super) async fn run(replica: &Arc<RedisReplica>, repair: &Reconciliation) {
    let mut born: Option<String> = None;
    let mut replicas = Heartbeat::default();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let [members, mark] = replica.keys.members();
        let channel = replica.keys.feed();
        let fresh = format!("{:016x}", fastrand::u64(..));
        let arguments: [&[u8]; 4] =
            [replica.owner.as_bytes(), MISSED_AFTER, fresh.as_bytes(), channel.as_bytes()];
        let connection = &replica.connection;
        let (sent, faults) = (replica.server_clock.now(), connection.faults());
        let heartbeat = connection
            .probe::<(String, String, i64)>(&connection.scripts.heartbeat, &[&members, &mark], &arguments)
            .await;
        let Ok((count, mark, server_us)) = heartbeat else { continue };
        replica.server_clock.measure(sent, server_us);
        replica.set_replicas(replicas.count(count.parse().unwrap_or(1)));
        let emptied = born.as_ref().is_some_and(|born| *born != mark);
        if emptied {
            stats::add(&connection.counts.emptied);
            tracing::warn!("redis data lost; writing back terminal and tracked jobs");
        }
        repair.request(faults, emptied);
        if born.as_ref() != Some(&mark) {
            inspect_server(replica).await;
            born = Some(mark);
        }
    }
}

/// Removes this replica from the member list, so that the others' shares grow at once.
pub(super) async fn leave(replica: &Arc<RedisReplica>) {
    let [members, _] = replica.keys.members();
    let leave = redis::cmd("ZREM").arg(members).arg(&replica.owner).to_owned();
    // If that fails, the entry expires after a few seconds.
    replica.connection.command::<i64>(&leave).await.ok();
}

/// Logs the settings of the server that break a guarantee.
async fn inspect_server(replica: &Arc<RedisReplica>) {
    let Ok(reply) = replica.connection.command::<Value>(&redis::cmd("INFO")).await else {
        tracing::debug!("redis INFO not permitted; the eviction policy is unknown");
        return;
    };
    let mut text = String::new();
    collect(&reply, &mut text);
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if let Some(policy) = line("maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            policy,
            "redis may evict leases; set maxmemory-policy noeviction or use a dedicated redis"
        );
    }
    let version = line("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let version_read = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !version.is_empty() && version_read < OLDEST {
        tracing::error!(version, "redis version unsupported; running standalone, 6.0 or later is required");
    }
}

/// All text in a reply: each node of a cluster replies separately.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enum, which grows: values without text are skipped"
)]
fn collect(value: &Value, text: &mut String) {
    match value {
        Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
        Value::SimpleString(line) => text.push_str(line),
        Value::VerbatimString { text: inner, .. } => text.push_str(inner),
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| collect(value, text)),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| collect(value, text)),
        // Numbers and the like: INFO returns none.
        _ => {}
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_count_is_the_maximum_of_recent_heartbeats() {
        let mut replicas = Heartbeat::default();
        assert_eq!(replicas.count(3), 3);
        assert_eq!(replicas.count(1), 3, "the first replica after an outage");
        assert_eq!(replicas.count(4), 4);
        let later: Vec<u32> = (0..REMEMBERED).map(|_| replicas.count(2)).collect();
        assert_eq!((later.first(), later.last()), (Some(&4), Some(&2)));
    }
}
