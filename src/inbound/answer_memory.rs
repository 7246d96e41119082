//! The memory of answers: how large one may get, and how much all of them may take at the same time, from the first
//! value to the last byte that is sent. What does not fit is refused at once and never waits, so that nothing blocks.
//!
//! An answer reserves what its values take before it is built. Texts of an upstream and rows are counted when they are
//! put into it, since nobody knows their size before.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::error::{Kind, Refusal};

/// What a value of an answer takes while it is built, beside its text, roughly: an entry of a map, a name, a number.
const VALUE_BYTES: usize = 160;
/// A text is in the value and in the JSON.
const COPIES: usize = 2;
/// How much more is reserved at once.
const STEP: usize = 64 * 1024;
/// What an update of a subscription takes in any case: there is at most one at a time of each, and none may be lost.
const UPDATE_BYTES: usize = 64 * 1024;
/// What a client is told to wait when there is no memory left.
const WAIT: Duration = Duration::from_secs(1);

const FITS: u8 = 0;
const TOO_LARGE: u8 = 1;
const NO_MEMORY: u8 = 2;

tokio::task_local! {
    /// The meter of the answer that is being built.
    static METER: Arc<Meter>;
}

/// The memory of all answers. A clone is cheap and means the same memory. The default bounds nothing.
#[derive(Clone)]
pub struct AnswerMemory(Arc<Inner>);

struct Inner {
    max_answer: usize,
    max: usize,
    used: AtomicUsize,
}

/// What one answer takes; dropping the last one gives it back.
#[derive(Debug)]
pub struct Meter {
    memory: AnswerMemory,
    reserved: AtomicUsize,
    values: usize,
    /// What it may reserve also when no memory is left.
    overdraft: usize,
    text: AtomicUsize,
    fault: AtomicU8,
}

impl AnswerMemory {
    /// At most `max_answer` bytes for one answer, as JSON, and `max` for all that are being built or sent.
    pub fn new(max_answer: usize, max: usize) -> Self {
        Self(Arc::new(Inner { max_answer, max, used: AtomicUsize::new(0) }))
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Begins an answer of at most so many values.
    ///
    /// # Errors
    /// 503, when there is no memory left for it.
    pub(super) fn begin(&self, values: u64) -> Result<Arc<Meter>, Refusal> {
        let bytes = usize::try_from(values).unwrap_or(usize::MAX).saturating_mul(VALUE_BYTES);
        // a limit of values that no memory could hold must not refuse everything
        let bytes = bytes.min(self.0.max / 2);
        if self.reserve(bytes) { Ok(self.meter(bytes)) } else { Err(no_memory()) }
    }

    /// Begins the answer to an update. A usual one is never refused.
    pub(super) fn begin_update(&self, values: u64) -> Arc<Meter> {
        let bytes = usize::try_from(values).unwrap_or(usize::MAX).saturating_mul(VALUE_BYTES);
        let bytes = bytes.min(UPDATE_BYTES);
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.meter_with(bytes, UPDATE_BYTES)
    }

    /// Holds the memory of an update that is written as JSON, until it is sent.
    pub(super) fn hold(&self, bytes: usize) -> Arc<Meter> {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.meter(bytes)
    }

    /// Writes JSON that is no longer than an answer may be, or gives nothing.
    pub(super) fn write(&self, write: impl FnOnce(&mut Capped) -> serde_json::Result<()>) -> Option<Vec<u8>> {
        let mut json = Capped { bytes: Vec::with_capacity(512), max: self.0.max_answer };
        write(&mut json).ok().map(|()| json.bytes)
    }

    /// The JSON of an answer that was built without a meter, as it is sent.
    ///
    /// # Errors
    /// When it is longer than one may be, or there is no memory left for it.
    pub(super) fn send(&self, json: Vec<u8>) -> Result<Bytes, Refusal> {
        if json.len() > self.0.max_answer {
            return Err(self.too_large());
        }
        let bytes = json.capacity();
        if self.reserve(bytes) { Ok(self.meter(bytes).sent(json)) } else { Err(no_memory()) }
    }

    /// The refusal of an answer that is longer than one may be.
    pub(super) fn too_large(&self) -> Refusal {
        let max = self.0.max_answer;
        let message =
            format!("the answer is longer than {max} bytes; ask for fewer jobs, rows or fields at a time");
        Refusal::new(Kind::AnswerTooLarge, message).with("limit", "max_answer_bytes").with("value", max)
    }

    fn meter(&self, reserved: usize) -> Arc<Meter> {
        self.meter_with(reserved, 0)
    }

    fn meter_with(&self, reserved: usize, overdraft: usize) -> Arc<Meter> {
        Arc::new(Meter {
            memory: self.clone(),
            reserved: AtomicUsize::new(reserved),
            values: reserved,
            overdraft,
            text: AtomicUsize::new(0),
            fault: AtomicU8::new(FITS),
        })
    }

    fn reserve(&self, bytes: usize) -> bool {
        let Inner { max, used, .. } = &*self.0;
        let more = |used: usize| used.checked_add(bytes).filter(|used| used <= max);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Default for AnswerMemory {
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

impl Meter {
    /// Counts a text that goes into the answer, and says whether it may.
    fn charge(&self, bytes: usize) -> bool {
        if self.fault.load(Ordering::Relaxed) != FITS {
            return false;
        }
        let text = self.text.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if text > self.memory.0.max_answer {
            self.fault.store(TOO_LARGE, Ordering::Relaxed);
            return false;
        }
        let reserved = self.reserved.load(Ordering::Relaxed);
        let missing = text.saturating_mul(COPIES).saturating_add(self.values).saturating_sub(reserved);
        if missing == 0 {
            return true;
        }
        let more = missing.max(STEP);
        let taken = if self.memory.reserve(more) {
            more
        } else if self.memory.reserve(missing) {
            missing
        } else if reserved.saturating_add(missing) <= self.overdraft {
            self.memory.0.used.fetch_add(missing, Ordering::Relaxed);
            missing
        } else {
            self.fault.store(NO_MEMORY, Ordering::Relaxed);
            return false;
        };
        self.reserved.fetch_add(taken, Ordering::Relaxed);
        true
    }

    /// The memory of all answers.
    pub(super) const fn memory(&self) -> &AnswerMemory {
        &self.memory
    }

    /// Why the answer cannot be given, if something did not fit into it.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self.fault.load(Ordering::Relaxed) {
            FITS => None,
            NO_MEMORY => Some(no_memory()),
            _ => Some(self.memory.too_large()),
        }
    }

    /// Builds a part of the answer under this meter.
    pub(super) async fn around<F: Future>(self: Arc<Self>, building: F) -> F::Output {
        METER.scope(self, building).await
    }

    /// The same for what does not wait.
    pub(super) fn within<T>(self: &Arc<Self>, building: impl FnOnce() -> T) -> T {
        METER.sync_scope(Arc::clone(self), building)
    }

    /// The answer as it is sent: keeps its memory reserved until it is.
    pub(super) fn sent(self: Arc<Self>, json: Vec<u8>) -> Bytes {
        let before = self.reserved.swap(json.capacity(), Ordering::Relaxed);
        let used = &self.memory.0.used;
        used.fetch_add(json.capacity(), Ordering::Relaxed);
        used.fetch_sub(before, Ordering::Relaxed);
        Bytes::from_owner(Sent { json, _meter: self })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.memory.0.used.fetch_sub(*self.reserved.get_mut(), Ordering::Relaxed);
    }
}

/// Counts a text that goes into the answer being built, if one is, and says whether it may.
pub(super) fn charge(bytes: usize) -> bool {
    METER.try_with(|meter| meter.charge(bytes)).unwrap_or(true)
}

fn no_memory() -> Refusal {
    let message = "the gateway has no memory left for this answer now; ask again, or for fewer jobs, rows or fields at a time";
    Refusal::overloaded(WAIT, message)
}

/// An answer on its way, with the memory it holds.
struct Sent {
    json: Vec<u8>,
    _meter: Arc<Meter>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// Bytes that do not get longer than they may.
#[derive(Debug)]
pub(super) struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Capped {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(more.len()) > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for AnswerMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { max_answer, max, .. } = &*self.0;
        f.debug_struct("AnswerMemory")
            .field("max_answer", max_answer)
            .field("max", max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_longer_than_allowed_is_refused() {
        let memory = AnswerMemory::new(1000, usize::MAX);
        let meter = memory.begin(1).unwrap();
        assert!(meter.within(|| charge(600) && charge(400)));
        assert!(meter.refusal().is_none());
        assert!(!meter.within(|| charge(1)));
        assert_eq!(meter.refusal().unwrap().kind(), Kind::AnswerTooLarge);
        assert!(!meter.within(|| charge(0)), "nothing is built any more");
        assert!(memory.write(|json| serde_json::to_writer(json, &"x".repeat(998))).is_some());
        assert!(memory.write(|json| serde_json::to_writer(json, &"x".repeat(999))).is_none());
    }

    #[test]
    fn all_answers_share_the_memory_and_give_it_back() {
        let memory = AnswerMemory::new(usize::MAX, 100 * VALUE_BYTES);
        // one answer reserves half of it at most
        let (first, second) = (memory.begin(60).unwrap(), memory.begin(40).unwrap());
        assert_eq!(memory.begin(11).unwrap_err().kind(), Kind::Overloaded);
        let third = memory.begin(10).unwrap();
        assert!(!second.within(|| charge(10)));
        assert_eq!(second.refusal().unwrap().kind(), Kind::Overloaded);
        drop((second, third));
        assert!(first.within(|| charge(10)));
        let sent = first.sent(vec![b'x'; 10]);
        assert_eq!((memory.used(), &sent[..3]), (10, b"xxx".as_slice()));
        let part = sent.slice(2..4);
        drop(sent);
        assert_eq!(memory.used(), 10, "a part of it is still to be sent");
        drop(part);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_usual_update_is_never_refused() {
        let memory = AnswerMemory::new(usize::MAX, 10);
        let update = memory.begin_update(60);
        assert!(update.within(|| charge(1_000) && charge(10_000)), "its texts have room");
        assert!(update.refusal().is_none());
        drop((update, memory.hold(500)));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn what_is_not_metered_is_not_counted() {
        assert!(charge(usize::MAX));
    }
}
