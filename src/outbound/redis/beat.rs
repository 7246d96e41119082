//! Says once a second that this replica is there, and learns how many others are; notices that Redis was emptied, and
//! writes back what it lost; and says at start what about this Redis is not as it should be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;

use super::store::RedisStore;
use super::{Shared, counts};

/// How often, and how long until a replica is missed that does not.
const EVERY: Duration = Duration::from_secs(1);
const MISSED_AFTER: &[u8] = b"5000";
/// The oldest server that this was written for.
const OLDEST: (u32, u32) = (6, 0);

/// Beats for ever.
pub(super) async fn beat(shared: &Arc<Shared>, store: &Arc<RedisStore>) {
    let mut born: Option<String> = None;
    loop {
        let [members, mark] = shared.keys.members();
        let channel = shared.keys.feed();
        let fresh = format!("{:016x}", fastrand::u64(..));
        let arguments: [&[u8]; 4] =
            [shared.owner.as_bytes(), MISSED_AFTER, fresh.as_bytes(), channel.as_bytes()];
        let link = &shared.link;
        let sent = shared.dating.now();
        let beat =
            link.probe::<(String, String, i64)>(&link.scripts.beat, &[&members, &mark], &arguments).await;
        if let Ok((count, mark, server_us)) = beat {
            shared.dating.measure(sent, server_us);
            shared.replicas.store(count.parse().unwrap_or(1).max(1), Ordering::Relaxed);
            let emptied = born.as_ref().is_some_and(|born| *born != mark);
            if emptied {
                counts::add(&link.counts.emptied);
                tracing::warn!(
                    "redis has been emptied; what this process holds of ended and of tracked jobs is written back"
                );
            }
            if born.as_ref() != Some(&mark) {
                look_at_server(shared).await;
                born = Some(mark);
            }
            store.write_back(emptied).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Takes leave, so that the others' shares grow at once.
pub(super) async fn leave(shared: &Arc<Shared>) {
    let [members, _] = shared.keys.members();
    let leave = redis::cmd("ZREM").arg(members).arg(&shared.owner).to_owned();
    // One that cannot say so is missed after a few seconds.
    shared.link.ask::<i64>(&leave).await.ok();
}

/// Says what will not work as promised.
async fn look_at_server(shared: &Arc<Shared>) {
    let Ok(said) = shared.link.ask::<Value>(&redis::cmd("INFO")).await else {
        tracing::debug!("redis does not let us read INFO: whether it may evict turns is not known");
        return;
    };
    let mut text = String::new();
    collect(&said, &mut text);
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if let Some(policy) = line("maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            policy,
            "redis may evict the turns of replicas, which costs extra looks: set maxmemory-policy noeviction, or give \
             jobgate a Redis of its own"
        );
    }
    let version = line("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let version_read = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !version.is_empty() && version_read < OLDEST {
        tracing::error!(version, "this redis is too old: jobgate needs 6.0 or later, and goes on without it");
    }
}

/// All text in an answer: a cluster's nodes answer each for itself.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enum, which grows: what is no text is left out"
)]
fn collect(value: &Value, text: &mut String) {
    match value {
        Value::BulkString(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
        Value::SimpleString(line) => text.push_str(line),
        Value::VerbatimString { text: inner, .. } => text.push_str(inner),
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| collect(value, text)),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| collect(value, text)),
        // Numbers and the like: nothing that INFO says.
        _ => {}
    }
    text.push('\n');
}
