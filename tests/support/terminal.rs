//! The real binary on a pseudo-terminal, and what a person sees there: the screen of an emulator that reads its output.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The limit of every wait: only a hung process reaches it.
const LIMIT: Duration = Duration::from_mins(2);
/// The lines above the screen that are kept.
const SCROLLBACK: usize = 200;

/// A `jobgate` whose controlling terminal is a pseudo-terminal.
pub(crate) struct TerminalProcess {
    child: Child,
    keyboard: File,
    emulator: Arc<Mutex<vt100::Parser>>,
    changes: watch::Receiver<()>,
    reader: JoinHandle<()>,
}

impl TerminalProcess {
    /// Starts `jobgate` with these arguments and only this environment, on a terminal of this many rows and columns.
    pub(crate) fn start(rows: u16, columns: u16, args: &[&str], env: &[(&str, &str)]) -> Self {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&ours).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&theirs, size).unwrap();
        // a session of its own with this terminal, so that Ctrl-C is a signal
        let mut command = Command::new("/usr/bin/setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_jobgate")]).args(args);
        command.env_clear().envs(env.iter().copied()).env("TERM", "xterm-256color").kill_on_drop(true);
        command
            .stdin(Stdio::from(theirs.try_clone().unwrap()))
            .stdout(Stdio::from(theirs.try_clone().unwrap()));
        let child = command.stderr(Stdio::from(theirs)).spawn().unwrap();
        // with the last handle of the child the output ends
        drop(command);
        let keyboard = File::from(ours);
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, SCROLLBACK)));
        let (sender, changes) = watch::channel(());
        let reader = read(keyboard.try_clone().unwrap(), Arc::clone(&emulator), sender);
        Self { child, keyboard, emulator, changes, reader }
    }

    /// Waits for a screen of which `read` returns a value.
    pub(crate) async fn find<T: Send>(
        &mut self,
        what: &str,
        read: impl Fn(&vt100::Screen) -> Option<T> + Send + Sync,
    ) -> T {
        let search = async {
            loop {
                self.changes.borrow_and_update();
                let found = read(self.emulator.lock().unwrap().screen());
                if found.is_some() || self.changes.changed().await.is_err() {
                    return found.or_else(|| read(self.emulator.lock().unwrap().screen()));
                }
            }
        };
        let found = tokio::time::timeout(LIMIT, search).await.ok().flatten();
        let screen = self.emulator.lock().unwrap().screen().contents();
        assert!(found.is_some(), "no {what} on the screen:\n{screen}");
        found.unwrap()
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the exit: the status, and the screen.
    pub(crate) async fn ended(mut self) -> (ExitStatus, vt100::Screen) {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        let screen = || self.emulator.lock().unwrap().screen().clone();
        assert!(status.is_ok(), "the process does not exit; the screen:\n{}", screen().contents());
        self.reader.await.unwrap();
        (status.unwrap().unwrap(), self.emulator.lock().unwrap().screen().clone())
    }
}

/// Feeds the output of the terminal to the emulator until the process has closed it, which is an error here.
fn read(mut output: File, emulator: Arc<Mutex<vt100::Parser>>, sender: watch::Sender<()>) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut bytes) {
            emulator.lock().unwrap().process(&bytes[..count]);
            sender.send_replace(());
        }
    })
}

/// The rows of the screen that are not blank, without trailing blanks.
pub(crate) fn rows(screen: &vt100::Screen) -> Vec<String> {
    let (_, columns) = screen.size();
    let rows = screen.rows(0, columns).map(|row| row.trim_end().to_owned());
    rows.filter(|row| !row.is_empty()).collect()
}

/// The colours in which a word is written, wherever it is on the screen.
pub(crate) fn colours(screen: &vt100::Screen, word: &str) -> Vec<vt100::Color> {
    let (rows, columns) = screen.size();
    let mut found = Vec::new();
    for row in 0..rows {
        let cells: Vec<&vt100::Cell> = (0..columns).filter_map(|column| screen.cell(row, column)).collect();
        // one cell for each letter of these words
        for window in cells.windows(word.len()) {
            if window.iter().map(|cell| cell.contents()).collect::<String>() == word {
                found.extend(window.first().map(|cell| cell.fgcolor()));
            }
        }
    }
    found
}
