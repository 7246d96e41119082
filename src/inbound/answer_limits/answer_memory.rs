//! Limits the memory of answers: the size of one, and the total of all, from the first value to the last byte that is
//! sent. An answer that does not fit is rejected at once and never waits, so that nothing blocks.
//!
//! An answer reserves the memory of its values before it is built. Texts of an upstream and rows are counted when they
//! are added, since their size is not known before. The answers to one client take half of the memory at most.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::by_client::ByClient;
use crate::domain::principal::Principal;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// The approximate size of a value while an answer is built, beside its text: an entry of a map, a name, a number.
const VALUE_BYTES: usize = 160;
/// A text is in the value and in the JSON.
const COPIES: usize = 2;
/// The increment of a reservation.
const STEP: usize = 64 * 1024;
/// The memory that an update of a subscription always gets: there is at most one at a time of each, and none may be
/// lost.
const UPDATE_BYTES: usize = 64 * 1024;
/// The retry delay for a client when no memory is left.
const WAIT: Duration = Duration::from_secs(1);

/// Why an answer does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// It is longer than the limit of one answer.
    TooLarge,
    /// No memory is left.
    NoMemory,
    /// The share of its client is used up.
    ClientFull,
}

tokio::task_local! {
    /// The reservation of the answer that is being built.
    static METER: Arc<AnswerReservation>;
}

/// The memory of all answers. A clone is cheap and shares the memory. The default has no limit.
#[derive(Clone)]
pub struct AnswerMemory(Arc<AnswerMemoryState>);

struct AnswerMemoryState {
    max_answer: usize,
    max: usize,
    used: AtomicUsize,
    /// The memory of the answers to each client.
    clients: ByClient<AtomicUsize>,
}

/// The memory as one client may use it. A clone is cheap.
#[derive(Clone, Debug)]
pub(in crate::inbound) struct ClientMemory {
    memory: AnswerMemory,
    /// The memory of its answers; none for a local client, which has no share.
    used: Option<Arc<AtomicUsize>>,
}

/// The memory of one answer; released when the last clone is dropped.
#[derive(Debug)]
pub struct AnswerReservation {
    of: ClientMemory,
    reserved: AtomicUsize,
    values: usize,
    /// What it may reserve even if no memory is left.
    overdraft: usize,
    text: AtomicUsize,
    /// The first reason why it does not fit.
    shortage: OnceLock<Shortage>,
}

impl AnswerMemory {
    /// At most `max_answer` bytes for one answer, as JSON, and `max` for all that are being built or sent.
    pub fn new(max_answer: usize, max: usize) -> Self {
        Self(Arc::new(AnswerMemoryState {
            max_answer,
            max,
            used: AtomicUsize::new(0),
            clients: ByClient::default(),
        }))
    }

    /// The size limit of one answer, in bytes.
    pub(in crate::inbound) fn max_answer(&self) -> usize {
        self.0.max_answer
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The memory for a client.
    pub(in crate::inbound) fn of(&self, client: &Principal) -> ClientMemory {
        let used = self.0.clients.of(client, || AtomicUsize::new(0));
        ClientMemory { memory: self.clone(), used }
    }

    /// The limit of the answers to one client.
    fn share(&self) -> usize {
        self.0.max / 2
    }

    /// Writes JSON up to the limit of one answer; `None` if it is longer.
    pub(in crate::inbound) fn write(
        &self,
        write: impl FnOnce(&mut CappedBuffer) -> serde_json::Result<()>,
    ) -> Option<Vec<u8>> {
        let mut json = CappedBuffer { bytes: Vec::with_capacity(512), max: self.0.max_answer };
        write(&mut json).ok().map(|()| json.bytes)
    }

    /// The refusal of an answer that is longer than the limit.
    pub(in crate::inbound) fn too_large(&self) -> HttpRefusal {
        let max = self.0.max_answer;
        let message = format!(
            "the response exceeds {max} bytes (max_answer_bytes); request fewer jobs, rows or fields at a time"
        );
        HttpRefusal::new(RefusalKind::AnswerTooLarge, message)
            .with("limit", "max_answer_bytes")
            .with("value", max)
    }

    fn refusal(&self, shortage: Shortage) -> HttpRefusal {
        match shortage {
            Shortage::TooLarge => self.too_large(),
            Shortage::NoMemory => no_memory(),
            Shortage::ClientFull => {
                let message = "the answers to this client take as much memory as one client may have, half of \
                               server.answer_memory; wait for them, or ask for fewer jobs, rows or fields at a time";
                let refusal = HttpRefusal::new(RefusalKind::TooManyRequests, message).retry_after(WAIT);
                refusal.with("limit", "answer_memory_per_client").with("value", self.share())
            }
        }
    }
}

impl ClientMemory {
    /// Begins an answer of at most this many values.
    ///
    /// # Errors
    /// 503, when there is no memory left for it; 429, when the client's share is used up.
    pub(in crate::inbound) fn begin(&self, values: u64) -> Result<Arc<AnswerReservation>, HttpRefusal> {
        // a limit of values that no share could hold must not reject everything
        let bytes = bytes_of(values).min(self.memory.share() / 2);
        self.reserve(bytes).map_err(|shortage| self.memory.refusal(shortage))?;
        Ok(self.meter(bytes, 0))
    }

    /// Begins the answer to an update. One of a usual size is never rejected: it reserves `UPDATE_BYTES` in any case,
    /// until it is sent.
    pub(in crate::inbound) fn begin_update(&self, values: u64) -> Arc<AnswerReservation> {
        let bytes = bytes_of(values).min(UPDATE_BYTES);
        self.add(bytes);
        self.meter(bytes, UPDATE_BYTES)
    }

    /// The memory of an update that was encoded before, for another subscriber: its bytes, until it is sent.
    pub(in crate::inbound) fn begin_shared(&self, bytes: usize) -> Arc<AnswerReservation> {
        self.add(bytes);
        self.meter(bytes, bytes)
    }

    /// The JSON of an answer that was built without a reservation, ready to be sent.
    ///
    /// # Errors
    /// Returns an error if it is longer than the limit, or there is no memory left for it.
    pub(in crate::inbound) fn send(&self, json: Vec<u8>) -> Result<Bytes, HttpRefusal> {
        if json.len() > self.memory.0.max_answer {
            return Err(self.memory.too_large());
        }
        self.reserve(json.capacity()).map_err(|shortage| self.memory.refusal(shortage))?;
        Ok(self.meter(json.capacity(), 0).sent(json))
    }

    fn meter(&self, reserved: usize, overdraft: usize) -> Arc<AnswerReservation> {
        Arc::new(AnswerReservation {
            of: self.clone(),
            reserved: AtomicUsize::new(reserved),
            values: reserved,
            overdraft,
            text: AtomicUsize::new(0),
            shortage: OnceLock::new(),
        })
    }

    /// Reserves this many bytes, or returns why it cannot.
    fn reserve(&self, bytes: usize) -> Result<(), Shortage> {
        let take = |used: &AtomicUsize, max: usize| {
            let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if let Some(used) = &self.used
            && !take(used, self.memory.share())
        {
            return Err(Shortage::ClientFull);
        }
        if take(&self.memory.0.used, self.memory.0.max) {
            return Ok(());
        }
        if let Some(used) = &self.used {
            used.fetch_sub(bytes, Ordering::Relaxed);
        }
        Err(Shortage::NoMemory)
    }

    /// Reserves bytes whether or not they are available.
    fn add(&self, bytes: usize) {
        for used in self.used.as_deref().into_iter().chain([&self.memory.0.used]) {
            used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn give_back(&self, bytes: usize) {
        for used in self.used.as_deref().into_iter().chain([&self.memory.0.used]) {
            used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

fn bytes_of(values: u64) -> usize {
    usize::try_from(values).unwrap_or(usize::MAX).saturating_mul(VALUE_BYTES)
}

impl Default for AnswerMemory {
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

impl AnswerReservation {
    /// Counts the texts of an answer that was written as a whole.
    ///
    /// # Errors
    /// Returns an error if they do not fit.
    pub(in crate::inbound) fn admit(&self, bytes: usize) -> Result<(), HttpRefusal> {
        if self.charge(bytes) { Ok(()) } else { Err(self.refusal().unwrap_or_else(no_memory)) }
    }

    /// Counts a text of the answer, and returns whether it fits.
    fn charge(&self, bytes: usize) -> bool {
        if self.shortage.get().is_some() {
            return false;
        }
        let text = self.text.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if text > self.of.memory.0.max_answer {
            self.shortage.get_or_init(|| Shortage::TooLarge);
            return false;
        }
        let reserved = self.reserved.load(Ordering::Relaxed);
        let missing = text.saturating_mul(COPIES).saturating_add(self.values).saturating_sub(reserved);
        if missing == 0 {
            return true;
        }
        let more = missing.max(STEP);
        let taken = if self.of.reserve(more).is_ok() {
            more
        } else {
            match self.of.reserve(missing) {
                Ok(()) => {}
                Err(_) if reserved.saturating_add(missing) <= self.overdraft => self.of.add(missing),
                Err(shortage) => {
                    self.shortage.get_or_init(|| shortage);
                    return false;
                }
            }
            missing
        };
        self.reserved.fetch_add(taken, Ordering::Relaxed);
        true
    }

    /// The memory of all answers.
    pub(in crate::inbound) const fn memory(&self) -> &AnswerMemory {
        &self.of.memory
    }

    /// The refusal, if something did not fit into the answer.
    pub(in crate::inbound) fn refusal(&self) -> Option<HttpRefusal> {
        self.shortage.get().map(|shortage| self.of.memory.refusal(*shortage))
    }

    /// Builds a part of the answer under this reservation.
    pub(in crate::inbound) async fn around<F: Future>(self: Arc<Self>, building: F) -> F::Output {
        METER.scope(self, building).await
    }

    /// The same for synchronous code.
    pub(in crate::inbound) fn within<T>(self: &Arc<Self>, building: impl FnOnce() -> T) -> T {
        METER.sync_scope(Arc::clone(self), building)
    }

    /// The answer as it is sent: keeps its memory reserved until then.
    pub(in crate::inbound) fn sent(self: Arc<Self>, json: Vec<u8>) -> Bytes {
        self.written(json.capacity());
        Bytes::from_owner(MeteredBody { json, _meter: self })
    }

    /// Records that the answer is serialized into this many bytes, and its values are dropped.
    pub(in crate::inbound) fn written(&self, bytes: usize) {
        let before = self.reserved.swap(bytes, Ordering::Relaxed);
        if before == bytes {
            return;
        }
        self.of.add(bytes);
        self.of.give_back(before);
    }
}

impl Drop for AnswerReservation {
    fn drop(&mut self) {
        self.of.give_back(*self.reserved.get_mut());
    }
}

/// Counts a text of the answer that is being built, if there is one, and returns whether it fits.
pub(in crate::inbound) fn charge(bytes: usize) -> bool {
    METER.try_with(|meter| meter.charge(bytes)).unwrap_or(true)
}

fn no_memory() -> HttpRefusal {
    let message = "the gateway is at its memory limit for responses (answer_memory); retry later, \
        or request fewer jobs, rows or fields at a time";
    HttpRefusal::overloaded(WAIT, message)
}

/// A body that is being sent, with its reservation.
struct MeteredBody {
    json: Vec<u8>,
    _meter: Arc<AnswerReservation>,
}

impl AsRef<[u8]> for MeteredBody {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// A buffer with a maximum size.
#[derive(Debug)]
pub(in crate::inbound) struct CappedBuffer {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for CappedBuffer {
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
        let AnswerMemoryState { max_answer, max, .. } = &*self.0;
        f.debug_struct("AnswerMemory")
            .field("max_answer", max_answer)
            .field("max", max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn answer_over_the_size_limit_is_refused() {
        let memory = AnswerMemory::new(1000, usize::MAX);
        let meter = memory.of(&Principal::local()).begin(1).unwrap();
        assert!(meter.within(|| charge(600) && charge(400)));
        assert!(meter.refusal().is_none());
        assert!(!meter.within(|| charge(1)));
        assert_eq!(meter.refusal().unwrap().kind(), RefusalKind::AnswerTooLarge);
        assert!(!meter.within(|| charge(0)), "nothing is being built any more");
        assert!(memory.write(|json| serde_json::to_writer(json, &"x".repeat(998))).is_some());
        assert!(memory.write(|json| serde_json::to_writer(json, &"x".repeat(999))).is_none());
    }

    #[test]
    fn answers_share_the_memory() {
        let memory = AnswerMemory::new(usize::MAX, 100 * VALUE_BYTES);
        let local = memory.of(&Principal::local());
        // the values of one answer reserve a quarter of it at most
        let (first, second) = (local.begin(60).unwrap(), local.begin(25).unwrap());
        let others = [local.begin(25).unwrap(), local.begin(15).unwrap()];
        assert_eq!(local.begin(11).unwrap_err().kind(), RefusalKind::Overloaded);
        let third = local.begin(10).unwrap();
        assert!(!second.within(|| charge(10)));
        assert_eq!(second.refusal().unwrap().kind(), RefusalKind::Overloaded);
        drop((second, third, others));
        assert!(first.within(|| charge(10)), "released memory is available again");
    }

    #[test]
    fn memory_of_an_answer_is_released_once_all_of_it_is_sent() {
        let memory = AnswerMemory::new(usize::MAX, 100 * VALUE_BYTES);
        let answer = memory.of(&Principal::local()).begin(60).unwrap();
        assert!(answer.within(|| charge(10)));
        let sent = answer.sent(vec![b'x'; 10]);
        assert_eq!((memory.used(), &sent[..3]), (10, b"xxx".as_slice()));
        let part = sent.slice(2..4);
        drop(sent);
        assert_eq!(memory.used(), 10, "a part of it is still to be sent");
        drop(part);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn update_of_ordinary_size_is_never_refused() {
        let memory = AnswerMemory::new(usize::MAX, 10);
        for client in [Principal::local(), Principal::new("a", [])] {
            let update = memory.of(&client).begin_update(60);
            assert!(update.within(|| charge(1_000) && charge(10_000)), "its texts fit");
            assert!(update.refusal().is_none());
            update.written(700);
            assert_eq!(memory.used(), 700, "it is counted once until it is sent");
            drop(update);
            assert_eq!(memory.used(), 0);
        }
    }

    #[test]
    fn one_client_takes_at_most_half_of_the_memory() {
        let memory = AnswerMemory::new(usize::MAX, 100 * VALUE_BYTES);
        let (busy, calm) = (memory.of(&Principal::new("busy", [])), memory.of(&Principal::new("calm", [])));
        let held = [busy.begin(25).unwrap(), busy.begin(24).unwrap()];
        let refused = memory.of(&Principal::new("busy", [])).begin(2).unwrap_err();
        assert_eq!(refused.kind(), RefusalKind::TooManyRequests);
        assert!(refused.message().contains("server.answer_memory"), "{}", refused.message());
        assert_eq!(refused.into_response().headers()["retry-after"], "1");
        assert_eq!(busy.send(vec![b'x'; 2 * VALUE_BYTES]).unwrap_err().kind(), RefusalKind::TooManyRequests);
        let last = busy.begin(1).unwrap();
        assert!(!last.within(|| charge(1)), "nor by its texts");
        assert_eq!(last.refusal().unwrap().kind(), RefusalKind::TooManyRequests);
        let others = [calm.begin(25).unwrap(), calm.begin(25).unwrap()];
        assert_eq!(memory.used(), 100 * VALUE_BYTES);
        drop((held, last, others));
        assert_eq!((memory.used(), busy.used.unwrap().load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn charge_outside_a_meter_always_succeeds() {
        assert!(charge(usize::MAX));
    }
}
