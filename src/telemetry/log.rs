//! Sets up the log: one writer on standard error, text or JSON, filtered by directives.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

/// How the log is written. The composition root maps the configuration to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log of this process. A second start is refused quietly: the first one holds.
pub fn start(format: Format, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
}

/// A panic's own text is made of data, and may hold what an upstream sent: the log gets the place alone.
fn panicked(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panicked");
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::panic;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_by_its_place_and_not_by_its_text() {
        let (before, here) = (panic::take_hook(), thread::current().id());
        // other tests run beside this one: theirs go on to the hook before
        panic::set_hook(Box::new(
            move |info| {
                if thread::current().id() == here { panicked(info) } else { before(info) }
            },
        ));
        let log = Buffer::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let text = "cAnaRy".to_owned();
        tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| panic!("{text}")).unwrap_err();
        });
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("panicked") && said.contains("telemetry/log.rs:"), "{said}");
        assert!(!said.contains("cAnaRy"), "{said}");
    }
}
