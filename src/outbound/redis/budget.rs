//! The budget of one source, counted where all replicas see it: exact over any second and any hour, by the server's clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Shared, counts};
use crate::domain::id::SourceName;
use crate::outbound::gate::Limits;
use crate::outbound::gate::shared::{SharedBudget, Taken};
use crate::ports::BoxFuture;

/// A slot is free by itself after this long, if its replica died with it. Longer than any call.
const SLOT_MS: &[u8] = b"120000";
/// How soon to ask again when all slots are taken.
const SLOT_WAIT: Duration = Duration::from_millis(25);

/// The shared budget of one source.
#[derive(Debug)]
pub struct RedisBudget {
    shared: Arc<Shared>,
    names: [String; 3],
}

impl RedisBudget {
    pub(super) fn new(shared: Arc<Shared>, source: &SourceName) -> Self {
        let names = shared.keys.budget(source);
        Self { shared, names }
    }
}

impl SharedBudget for RedisBudget {
    fn take<'a>(&'a self, limits: &'a Limits) -> BoxFuture<'a, Taken> {
        Box::pin(async move {
            let link = &self.shared.link;
            let [per_second, per_hour, concurrency] =
                [limits.per_second, limits.per_hour, limits.concurrency]
                    .map(|limit| limit.max(1).to_string());
            let slot = format!("{}{:016x}", self.shared.owner, fastrand::u64(..));
            let arguments: [&[u8]; 5] = [
                per_second.as_bytes(),
                per_hour.as_bytes(),
                concurrency.as_bytes(),
                slot.as_bytes(),
                SLOT_MS,
            ];
            let names = self.names.each_ref().map(String::as_str);
            match link.run::<(i64, u64)>(&link.scripts.take, &names, &arguments).await {
                Ok((0, left)) => Taken::Go { slot, left: u32::try_from(left).unwrap_or(u32::MAX) },
                Ok((1, wait)) => Taken::Wait(Duration::from_millis(wait.max(1))),
                Ok((2, pause)) => Taken::Paused(Duration::from_millis(pause)),
                Ok(_) => Taken::Wait(SLOT_WAIT),
                Err(_) => {
                    counts::add(&link.counts.own_share);
                    Taken::Away(self.shared.replicas.load(Ordering::Relaxed))
                }
            }
        })
    }

    fn give_back(&self, slot: String) {
        let [_, slots, _] = &self.names;
        self.shared.later(redis::cmd("ZREM").arg(slots).arg(slot).to_owned());
    }

    fn pause(&self, pause: Duration) {
        let [_, _, name] = &self.names;
        let millis = super::scripts::millis(pause);
        let mut command = redis::cmd("EVAL");
        command.arg(self.shared.link.scripts.pause.code).arg(1).arg(name).arg(millis);
        self.shared.later(command);
    }
}
