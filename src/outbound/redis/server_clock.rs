//! The times of shared records. They are times of the server's clock, so that the clocks of the replicas do not matter:
//! each replica measures with every heartbeat the offset between the server and its own process time, and converts when
//! it writes and reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::observation::Observation;
use crate::outbound::stores::record::{DatedRecord, RecordClock};
use crate::ports::clock::Clock;

/// A change of the offset that counts as a step of a clock. A smaller one is a measurement error and ignored, so that a
/// record has the same times at every read.
const TOLERANCE: Duration = Duration::from_millis(250);

/// Converts times between this process and the server.
#[derive(Debug)]
pub(super) struct ServerClock {
    clock: Arc<dyn Clock>,
    /// The id of this run of the process among all writers.
    run: u64,
    /// The offset of the server to process time, in milliseconds. Until it is measured, the offset of the time of day.
    ahead: AtomicI64,
}

impl ServerClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let ahead = i64::try_from(clock.correction().as_millis()).unwrap_or(0);
        Self { clock, run: fastrand::u64(1..), ahead: AtomicI64::new(ahead) }
    }

    /// Process time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records the server's time, in microseconds, from the reply to a command that was sent at this process time.
    pub(super) fn measure(&self, sent: Timestamp, server_us: i64) {
        let took = self.now().duration_since(sent).as_millis();
        let took = i64::try_from(took).unwrap_or(i64::MAX);
        let measured = server_us / 1_000 - sent.as_millisecond() - took / 2;
        let wrong_by = i64::try_from(TOLERANCE.as_millis()).unwrap_or(i64::MAX).saturating_add(took / 2);
        if (measured - self.ahead.load(Ordering::Relaxed)).abs() > wrong_by {
            self.ahead.store(measured, Ordering::Relaxed);
            tracing::debug!(ahead_ms = measured, "measured clock offset of redis");
        }
    }

    /// The server's time now, in milliseconds.
    pub(super) fn server_ms(&self) -> i64 {
        self.now().as_millisecond().saturating_add(self.ahead_ms())
    }

    /// The offset of the server to process time, in milliseconds.
    pub(super) fn ahead_ms(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// The clock for records that are written and read now.
    pub(super) fn frame(&self) -> RecordClock {
        let ahead = self.ahead_ms();
        RecordClock { run: self.run, shift: ahead, others: ahead }
    }

    /// Converts a record, given what this process has of the job. If both have the same content and the record is from
    /// the future, the local times are used.
    pub(super) fn read(&self, record: DatedRecord, memory: Option<&Observation>) -> Observation {
        let (read, now) = (record.observation, self.now());
        if record.is_own || !read.is_from_future(now) {
            return read.clamped(now);
        }
        match memory.filter(|memory| memory.job.same_report(&read.job)) {
            Some(memory) => memory.clone(),
            None => read.clamped(now),
        }
    }
}
