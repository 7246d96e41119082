//! The real binary as a child process: its output is collected line by line, and it never outlives its test.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The limit of every wait for a process: only a hung one reaches it.
const LIMIT: Duration = Duration::from_mins(2);

/// A running `jobgate`.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    changes: watch::Receiver<()>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `jobgate` with these arguments and only this environment.
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_jobgate")), args, env)
    }

    /// The same with a soft and a hard limit of open files.
    pub(crate) fn limited(soft: u32, hard: u32, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new("/usr/bin/prlimit");
        command.arg(format!("--nofile={soft}:{hard}")).arg(env!("CARGO_BIN_EXE_jobgate"));
        Self::spawn(command, args, env)
    }

    fn spawn(mut command: Command, args: &[&str], env: &[(&str, &str)]) -> Self {
        command.args(args).env_clear().envs(env.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let (sender, changes) = watch::channel(());
        let sender = Arc::new(sender);
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&output), Arc::clone(&sender)),
            collect(child.stderr.take().unwrap(), Arc::clone(&output), sender),
        ];
        Self { child, output, changes, readers }
    }

    /// The output so far, of both streams.
    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits for a line for which `read` returns a value.
    pub(crate) async fn find<T: Send>(
        &mut self,
        what: &str,
        read: impl Fn(&str) -> Option<T> + Send + Sync,
    ) -> T {
        let mut searched = 0;
        // each line once: a reader that rereads a long log falls behind its writer
        let mut search_in = |output: &Mutex<String>| {
            let new = output.lock().unwrap().get(searched..).unwrap().to_owned();
            searched += new.len();
            new.lines().find_map(&read)
        };
        let search = async {
            loop {
                self.changes.borrow_and_update();
                let found = search_in(&self.output);
                if found.is_some() || self.changes.changed().await.is_err() {
                    return found.or_else(|| search_in(&self.output));
                }
            }
        };
        let found = tokio::time::timeout(LIMIT, search).await.ok().flatten();
        assert!(found.is_some(), "no line for {what} in the output:\n{}", self.output());
        found.unwrap()
    }

    /// The address after this word in a log line such as `listening public=127.0.0.1:8080`.
    pub(crate) async fn address(&mut self, word: &str) -> std::net::SocketAddr {
        let marks = [format!("{word}="), format!("\"{word}\":\"")];
        let read = |line: &str| {
            let (_, rest) = marks.iter().find_map(|mark| line.split_once(mark.as_str()))?;
            rest.split([' ', '"', ',']).next()?.parse().ok()
        };
        self.find(&marks[0], read).await
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let process = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Whether every thread of it is stopped. A `STOP` signal takes effect a moment after it was sent.
    pub(crate) fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id().unwrap())).unwrap();
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// The command line, which every user of the machine can read.
    pub(crate) fn command_line(&self) -> String {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.child.id().unwrap())).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The memory it has in use, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Waits for the exit: the status, and all output.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        assert!(status.is_ok(), "the process does not exit; its output:\n{}", self.output());
        for reader in self.readers {
            reader.await.unwrap();
        }
        let output = self.output.lock().unwrap().clone();
        (status.unwrap().unwrap(), output)
    }
}

/// Runs `jobgate` until it exits: the exit code, and the output of both streams.
pub(crate) async fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let (status, output) = Process::start(args, env).ended().await;
    (status.code(), output)
}

#[expect(clippy::disallowed_methods, reason = "a task of the test, not of the gateway")]
fn collect(
    stream: impl AsyncRead + Unpin + Send + 'static,
    output: Arc<Mutex<String>>,
    sender: Arc<watch::Sender<()>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let mut output = output.lock().unwrap();
            output.push_str(&String::from_utf8_lossy(&line));
            output.push('\n');
            drop(output);
            sender.send_replace(());
        }
    })
}
