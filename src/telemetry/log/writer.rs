//! The output of the log: a thread with a bounded buffer of `tracing-appender`. Logging never waits for it. If standard
//! error is not read, lines are dropped and counted, and their number is logged when there is capacity again.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::counters;

/// The number of lines that wait to be written.
pub(super) const LINES: usize = 4096;

/// Starts the thread. It writes what is left when the guard is dropped.
pub(super) fn start(out: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    let out = BufWriter::new(LogOutput { out, reported: 0 });
    NonBlockingBuilder::default().buffered_lines_limit(LINES).thread_name("log").finish(out)
}

/// An output without errors: they cannot be reported anywhere, and the thread would not stop after one.
struct LogOutput<W> {
    out: W,
    /// The number of dropped lines that were logged.
    reported: u64,
}

impl<W: Write> Write for LogOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                // Another process set the handle to non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Ok(bytes.len()),
                Ok(written) => return Ok(written),
            }
        }
    }

    /// Called when no line waits.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().ok();
        let dropped = counters::dropped();
        let lines = dropped.saturating_sub(self.reported);
        self.reported = dropped;
        if lines > 0 {
            tracing::warn!(lines, "log lines dropped; standard error is not read fast enough");
        }
        Ok(())
    }
}
