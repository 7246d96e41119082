//! The updates that were encoded last: subscribers that receive the same bytes share them. An update is encoded once for
//! each selection, and framed once for each transport of HTTP.
//!
//! An update is shared only if nothing in it depends on the client: see [`WrittenJson::is_for_any_client`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::inbound::graphql::plan::subscription::SubscriptionPlan;
use crate::inbound::graphql::plan::writer::WrittenJson;
use crate::inbound::graphql::recent_slots::RecentSlots;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::watch::{FeedCursor, UpdateKind, WatchUpdate};

/// How many updates are kept. The subscribers of a change are woken one after the other, so few are needed at a time.
const SLOTS: usize = 64;
/// The longest update that is kept, so that all together take 3 MiB at most, with a frame for SSE and one for multipart,
/// beside the snapshots of their jobs.
const MAX_BYTES: usize = 16 * 1024;

/// An update as JSON, with its frames.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct EncodedUpdate {
    json: String,
    /// The position of an update of the feed.
    cursor: Option<FeedCursor>,
    event: OnceLock<Bytes>,
    part: OnceLock<Bytes>,
}

/// The updates that were encoded last.
pub(super) struct SharedUpdates(RecentSlots<SharedUpdate>);

struct SharedUpdate {
    key: UpdateKey,
    encoded: Arc<EncodedUpdate>,
}

/// All that an encoded update depends on. It holds the snapshot and the plan, so that their addresses identify them.
pub(super) struct UpdateKey {
    plan: Arc<SubscriptionPlan>,
    root: usize,
    seen: Arc<JobSnapshot>,
    kind: UpdateKind,
    sequence: u64,
    is_final: bool,
}

impl EncodedUpdate {
    pub(super) const fn new(json: String) -> Self {
        Self { json, cursor: None, event: OnceLock::new(), part: OnceLock::new() }
    }

    /// The same for an update of the feed at this position.
    pub(super) fn at(self, cursor: FeedCursor) -> Self {
        Self { cursor: Some(cursor), ..self }
    }

    /// The position of an update of the feed, if its subscription can resume behind it.
    pub(in crate::inbound::graphql) const fn cursor(&self) -> Option<FeedCursor> {
        self.cursor
    }

    /// The response: `{"data":…}`.
    pub(in crate::inbound::graphql) fn json(&self) -> &str {
        &self.json
    }

    /// The response as a server-sent event.
    pub(in crate::inbound::graphql) fn event(&self, frame: impl FnOnce(&str) -> Bytes) -> Bytes {
        self.event.get_or_init(|| frame(&self.json)).clone()
    }

    /// The response as a part of a multipart response.
    pub(in crate::inbound::graphql) fn part(&self, frame: impl FnOnce(&str) -> Bytes) -> Bytes {
        self.part.get_or_init(|| frame(&self.json)).clone()
    }
}

impl UpdateKey {
    /// The key of an update of a root field; none if the update has no job.
    pub(super) fn new(plan: &Arc<SubscriptionPlan>, root: usize, update: &WatchUpdate) -> Option<Self> {
        let WatchUpdate { kind, sequence, is_final, .. } = *update;
        let seen = Arc::clone(update.answer.as_ref().ok()?);
        Some(Self { plan: Arc::clone(plan), root, seen, kind, sequence, is_final })
    }

    fn is_of(&self, plan: &Arc<SubscriptionPlan>, root: usize, update: &WatchUpdate) -> bool {
        let Ok(seen) = &update.answer else { return false };
        Arc::ptr_eq(&self.seen, seen)
            && Arc::ptr_eq(&self.plan, plan)
            && (self.root, self.kind, self.sequence, self.is_final)
                == (root, update.kind, update.sequence, update.is_final)
    }
}

impl SharedUpdates {
    /// The bytes of an update of a root field, if they are kept.
    pub(super) fn get(
        &self,
        plan: &Arc<SubscriptionPlan>,
        root: usize,
        update: &WatchUpdate,
    ) -> Option<Arc<EncodedUpdate>> {
        let seen = update.answer.as_ref().ok()?;
        let is_it =
            |held: &SharedUpdate| held.key.is_of(plan, root, update).then(|| Arc::clone(&held.encoded));
        self.0.find(slot_key(plan, seen), is_it)
    }

    /// The bytes of an update that was just written. They are kept under the key if they are the same for any client.
    pub(super) fn keep(&self, key: Option<UpdateKey>, written: WrittenJson) -> Arc<EncodedUpdate> {
        let WrittenJson { json, is_for_any_client, .. } = written;
        let is_kept = is_for_any_client && json.len() <= MAX_BYTES;
        let encoded = Arc::new(EncodedUpdate::new(json));
        if let Some(key) = key.filter(|_| is_kept) {
            let slot = slot_key(&key.plan, &key.seen);
            self.0.put(slot, SharedUpdate { key, encoded: Arc::clone(&encoded) });
        }
        encoded
    }
}

fn slot_key(plan: &Arc<SubscriptionPlan>, seen: &Arc<JobSnapshot>) -> u64 {
    (Arc::as_ptr(seen).addr() ^ Arc::as_ptr(plan).addr().rotate_left(16)) as u64
}

impl Default for SharedUpdates {
    fn default() -> Self {
        Self(RecentSlots::new(SLOTS))
    }
}

impl fmt::Debug for SharedUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedUpdates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Job, Life};
    use crate::domain::observation::Observation;
    use crate::jobs::visibility::RequestedRef;

    fn update() -> WatchUpdate {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, Life::Running, Details::Supermetrics(Box::default()));
        let at = Timestamp::UNIX_EPOCH;
        let observation = Observation::new(Arc::new(job), at, at);
        let (age, correction) = (Duration::ZERO, SignedDuration::ZERO);
        let (stale, next_poll) = (None, None);
        let seen = JobSnapshot { observation, observed_at: at, age, stale, next_poll, correction };
        let reference = Arc::new(RequestedRef::id("any".to_owned()));
        let (kind, answer) = (UpdateKind::Changed, Ok(Arc::new(seen)));
        WatchUpdate { reference, kind, answer, sequence: 7, is_final: false }
    }

    fn written(json: &str, is_for_any_client: bool) -> WrittenJson {
        WrittenJson { json: json.to_owned(), texts: 0, is_for_any_client }
    }

    #[test]
    fn update_is_shared_under_an_equal_key_only() {
        let (shared, plan, update) =
            (SharedUpdates::default(), Arc::new(SubscriptionPlan::empty()), update());
        assert!(shared.get(&plan, 0, &update).is_none());
        let kept = shared.keep(UpdateKey::new(&plan, 0, &update), written("{}", true));
        assert!(Arc::ptr_eq(&kept, &shared.get(&plan, 0, &update).unwrap()));
        let copied = update.answer.as_ref().map(|seen| Arc::new(JobSnapshot::clone(seen)));
        for (what, plan, root, other) in [
            ("plan", Arc::new(SubscriptionPlan::empty()), 0, update.clone()),
            ("root field", Arc::clone(&plan), 1, update.clone()),
            ("kind", Arc::clone(&plan), 0, WatchUpdate { kind: UpdateKind::Snapshot, ..update.clone() }),
            ("sequence", Arc::clone(&plan), 0, WatchUpdate { sequence: 8, ..update.clone() }),
            ("isFinal", Arc::clone(&plan), 0, WatchUpdate { is_final: true, ..update.clone() }),
            ("snapshot", plan, 0, WatchUpdate { answer: copied.map_err(Clone::clone), ..update }),
        ] {
            assert!(shared.get(&plan, root, &other).is_none(), "another {what}");
        }
    }

    #[test]
    fn update_of_one_client_or_of_great_length_is_not_kept() {
        let (shared, plan, update) =
            (SharedUpdates::default(), Arc::new(SubscriptionPlan::empty()), update());
        for json in [written("{}", false), written(&"x".repeat(MAX_BYTES + 1), true)] {
            shared.keep(UpdateKey::new(&plan, 0, &update), json);
            assert!(shared.get(&plan, 0, &update).is_none());
        }
        shared.keep(UpdateKey::new(&plan, 0, &update), written(&"x".repeat(MAX_BYTES), true));
        assert!(shared.get(&plan, 0, &update).is_some());
    }

    #[test]
    fn update_is_framed_once_for_each_transport() {
        let encoded = EncodedUpdate::new("{}".to_owned());
        for frame in ["first", "second"] {
            assert_eq!(encoded.event(|json| Bytes::from(format!("{frame} event {json}"))), "first event {}");
            assert_eq!(encoded.part(|json| Bytes::from(format!("{frame} part {json}"))), "first part {}");
        }
    }
}
