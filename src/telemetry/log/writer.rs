//! The writer: a thread with a bounded buffer. Logging never waits for it. If standard error is not read, lines are
//! dropped and counted, and their number is logged when there is capacity again.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::counters;

/// Bytes of lines that wait to be written; as many again may be in the process of being written.
pub(super) const ROOM: usize = 1 << 20;
/// How often timed work is checked for.
const TICK: Duration = Duration::from_secs(1);

type FlushTick = Box<dyn Fn(Instant) + Send + Sync>;

/// A handle to the writer. A clone is cheap and shares the same writer.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<WriterShared>);

struct WriterShared {
    state: Mutex<WriterState>,
    filled: Condvar,
    emptied: Condvar,
    tick: Mutex<Option<FlushTick>>,
}

#[derive(Default)]
struct WriterState {
    waiting: String,
    dropped: u64,
    writing: bool,
    ended: bool,
}

impl LogWriter {
    /// Starts the thread. It is stopped by [`LogWriter::end`], or by the exit of the process.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(WriterShared {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            tick: Mutex::default(),
        });
        let writer = Self(Arc::clone(&shared));
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.run(out))?;
        Ok(writer)
    }

    /// Sets a callback that runs about once a second.
    pub(super) fn each_second(&self, tick: impl Fn(Instant) + Send + Sync + 'static) {
        *self.0.tick.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tick));
    }

    /// Queues a line to be written, or drops it if the buffer is full.
    pub(super) fn put(&self, line: &str) {
        let mut state = self.0.lock();
        if state.waiting.len() + line.len() > ROOM {
            state.dropped += 1;
            drop(state);
            counters::dropped();
            return;
        }
        state.waiting.push_str(line);
        drop(state);
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, at most `at_most`, and stops the thread. Later lines are lost.
    pub(super) fn end(&self, at_most: Duration) {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.filled.notify_one();
        let until = Instant::now() + at_most;
        while state.writing || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let (next, _) = self.0.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }
}

impl WriterShared {
    fn lock(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write) {
        let mut lines = String::new();
        let mut tick_at = Instant::now() + TICK;
        loop {
            let now = Instant::now();
            if now >= tick_at {
                tick_at = now + TICK;
                if let Some(tick) = &*self.tick.lock().unwrap_or_else(PoisonError::into_inner) {
                    tick(now);
                }
            }
            let mut state = self.lock();
            state.writing = false;
            if state.waiting.is_empty() {
                self.emptied.notify_all();
                if state.ended {
                    return;
                }
                let left = tick_at.saturating_duration_since(Instant::now());
                let waited = self.filled.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut state.waiting, &mut lines);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = !lines.is_empty();
            drop(state);
            write(&mut out, lines.as_bytes());
            lines.clear();
            if dropped > 0 {
                tracing::warn!(lines = dropped, "log lines dropped; standard error is not read fast enough");
            }
        }
    }
}

/// Writes all bytes. An error cannot be reported anywhere.
fn write(out: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process set the handle to non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            Err(_) => return,
        }
    }
    out.flush().ok();
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").finish_non_exhaustive()
    }
}
