//! The notifications, on a separate connection. Messages are lost while it is down, without a count of them: so every
//! new connection is treated as a gap, and there is a periodic gap.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::records::JobRecords;
use super::replica::RedisReplica;
use crate::domain::id::JobKey;
use crate::domain::schedule::Backoff;
use crate::ports::feed::{ChangeNotification, RemoteChange};

/// Without a message for this long the connection is considered dead: every replica sends a heartbeat once a second.
const SILENCE: Duration = Duration::from_secs(4);
/// The largest delay between a change and its entry in the list of recent changes.
const CLOCKS: Duration = Duration::from_secs(30);
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// Parses a message. `None` for those of this process, whose id is `own`, and for those that are not about a job.
fn parse_notification(own: &str, message: &str) -> Option<ChangeNotification> {
    let mut words = message.splitn(3, ' ');
    let owner = words.next()?;
    let what = match words.next()? {
        "c" => RemoteChange::Changed,
        "r" => RemoteChange::Renewed,
        "x" => RemoteChange::Released,
        "t" => RemoteChange::Tracked,
        _ => return None,
    };
    let key = JobKey::from_node_id(words.next()?).ok()?;
    (owner != own).then_some(ChangeNotification { key, what })
}

/// Listens for ever.
pub(super) async fn run(replica: &Arc<RedisReplica>, records: &JobRecords) {
    let mut failures = 0_u32;
    let mut deaf_since = None;
    let channel = replica.keys.feed();
    for attempt in 0_usize.. {
        let subscribing = replica.connection.topology.subscribe(&channel, attempt);
        let connected = tokio::time::timeout(replica.connection.timeout() * 2, subscribing).await;
        if let Ok(Ok(mut messages)) = connected {
            // Messages from before the subscription are lost.
            replica.notifications.gap();
            if let Some(since) = deaf_since.take() {
                catch_up(replica, records, since).await;
            }
            let mut messages = messages.on_message();
            while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
                failures = 0;
                let text = message.get_payload_bytes();
                if let Some(notification) =
                    std::str::from_utf8(text).ok().and_then(|text| parse_notification(&replica.owner, text))
                {
                    replica.notifications.put(notification);
                }
            }
        }
        deaf_since.get_or_insert_with(Instant::now);
        let pause = RECONNECT.wait(failures, 0.5 + fastrand::f64() / 2.0);
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

/// Notifies about the changes during the gap. Followed jobs are read again anyway; this is for subscribers to the
/// changes of all jobs.
async fn catch_up(replica: &Arc<RedisReplica>, records: &JobRecords, since: Instant) {
    let within = since.elapsed() + SILENCE + CLOCKS;
    for key in records.changed_within(within).await.unwrap_or_default() {
        replica.notifications.put(ChangeNotification { key, what: RemoteChange::Changed });
    }
}
