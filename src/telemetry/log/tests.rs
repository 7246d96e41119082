//! Tests of the log as a whole, on a buffer.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::panic;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use http::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::layer::SubscriberExt as _;

use super::writer::LINES;
use super::*;
use crate::telemetry::trace::{self, testing::second_subscriber};

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines in JSON that are logged during `work`, and after the clock has advanced by `later`.
fn log_text(work: impl FnOnce(), later: Duration) -> String {
    log_text_in(LogFormatKind::Json, work, later)
}

pub(super) fn log_text_in(kind: LogFormatKind, work: impl FnOnce(), later: Duration) -> String {
    let (buffer, level) = (Buffer::default(), tracing::level_filters::LevelFilter::TRACE);
    let (mut writer, guard) = writer::start(buffer.clone());
    let events = EventFormat::new(LineFormat { kind, ansi: false });
    let layer = events.layer(writer.clone()).with_filter(level);
    let _second = second_subscriber();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    events.report_suppressed(&mut writer, Instant::now() + later);
    drop(guard);
    buffer.text()
}

#[test]
fn panic_is_logged_by_location_without_its_message() {
    let (before, here) = (panic::take_hook(), thread::current().id());
    // Other tests run in parallel: their panics go to the previous hook.
    panic::set_hook(Box::new(
        move |info| {
            if thread::current().id() == here { panicked(info) } else { before(info) }
        },
    ));
    let text = "cAnaRy".to_owned();
    let log_text = log_text(|| drop(panic::catch_unwind(|| panic!("{text}")).unwrap_err()), Duration::ZERO);
    assert!(log_text.contains("panicked") && log_text.contains("telemetry/log/tests.rs:"), "{log_text}");
    assert!(!log_text.contains("cAnaRy"), "{log_text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Texts and bytes of any kind, in every form of a field: there are as many lines as events.
    #[test]
    fn no_input_adds_or_joins_lines(given in vec((any::<String>(), vec(any::<u8>(), 0..40)), 1..10)) {
        for format in [LogFormatKind::Text, LogFormatKind::Json] {
            let work = || {
                for (text, bytes) in &given {
                    let path = Path::new(OsStr::from_bytes(bytes));
                    tracing::debug!(text, display = %text, debug = ?text, path = %path.display(), raw = ?path, "fixed");
                }
            };
            let log_text = log_text_in(format, work, Duration::ZERO);
            let lines: Vec<&str> = log_text.strip_suffix('\n').unwrap().split(['\n', '\r', '\u{2028}', '\u{85}']).collect();
            prop_assert_eq!(lines.len(), given.len());
            for line in lines {
                prop_assert!(line.contains("fixed") && !line.contains(char::is_control), "{:?}", line);
                if format == LogFormatKind::Json {
                    let read: serde_json::Value = serde_json::from_str(line).unwrap();
                    prop_assert_eq!(&read["text"], &read["display"]);
                }
            }
        }
    }
}

#[test]
fn repeated_event_is_limited_without_hiding_other_events() {
    let log_text = log_text(
        || {
            for number in 0..1_000 {
                tracing::warn!(source = "one", number, "again");
            }
            tracing::warn!(source = "two", "other");
            for number in 0..100 {
                tracing::info!(target: ACCESS, number, "each");
            }
        },
        repeats::WINDOW,
    );
    let lines: Vec<serde_json::Value> =
        log_text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let about = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let again = about("again");
    assert_eq!(again.len(), repeats::AT_ONCE as usize + 1);
    let last = again.last().unwrap();
    assert_eq!((&last["source"], &last["repeats"]), (&"one".into(), &(1_000 - repeats::AT_ONCE).into()));
    assert_eq!((about("other").len(), about("each").len()), (1, 100));
}

#[test]
fn log_line_contains_the_id_of_its_request() {
    let log_text = log_text(
        || {
            let _other = tracing::info_span!("other", request_id = "not this").entered();
            RequestScope::of(HeaderValue::from_static("r1")).within(|| tracing::info!("within"));
        },
        Duration::ZERO,
    );
    let line: serde_json::Value = serde_json::from_str(&log_text).unwrap();
    assert_eq!((&line["message"], &line["request_id"]), (&"within".into(), &"r1".into()));
}

#[test]
fn the_log_alone_creates_no_span_of_the_traces() {
    let (filter, _handle) = level::filter("trace").unwrap();
    let (writer, _guard) = writer::start(Buffer::default());
    let events = EventFormat::new(LineFormat { kind: LogFormatKind::Json, ansi: false });
    let log = events.layer(writer).with_filter(filter);
    let disabled = || {
        let other = tracing::info_span!("other").is_disabled();
        (other, tracing::info_span!(target: trace::TARGET, "of the traces").is_disabled())
    };
    let subscriber = tracing_subscriber::registry().with(log);
    let _second = second_subscriber();
    assert_eq!(tracing::subscriber::with_default(subscriber, disabled), (false, true));
}

/// Accepts one piece of output each time it is released.
struct Stuck {
    go_on: Receiver<()>,
    out: Buffer,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go_on.recv().ok();
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer to an output that is stuck until the sender is dropped, with more lines than it buffers.
fn stuck_writer() -> (NonBlocking, LogGuard, SyncSender<()>, Buffer) {
    let (release, go_on): (SyncSender<()>, _) = sync_channel(0);
    let out = Buffer::default();
    let (mut writer, guard) = writer::start(Stuck { go_on, out: out.clone() });
    let line = format!("{}\n", "x".repeat(1023));
    for _ in 0..4 * LINES {
        writer.write_all(line.as_bytes()).unwrap();
    }
    (writer, LogGuard(Some(guard)), release, out)
}

#[test]
fn lines_for_a_stuck_log_output_are_dropped_and_counted() {
    let (writer, guard, release, out) = stuck_writer();
    let dropped = writer.error_counter().dropped_lines();
    assert!(dropped >= 2 * LINES, "{dropped} lines");
    drop((release, guard, writer));
    while out.text().lines().count() < 4 * LINES - dropped {
        thread::yield_now();
    }
    assert!(out.text().lines().all(|line| line.len() == 1023), "no part of a line is dropped");
}

#[test]
fn shutdown_does_not_wait_for_a_stuck_log_output() {
    let (writer, guard, release, _) = stuck_writer();
    drop(guard);
    drop((release, writer));
}
