//! A real `redis-server` for one test: on a free port, without data on disk, and never outliving the test.

use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long a server may take to start: only a machine without CPU time needs it.
const LIMIT: Duration = Duration::from_mins(2);

/// The ports of the servers: below the default range of ephemeral ports, so that no other socket gets one before its
/// server does, or while that is down for a moment; nor does a connection to one connect to itself.
const PORTS: Range<u16> = 12_000..32_000;

/// A running server.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    dir: std::path::PathBuf,
}

impl Redis {
    /// Starts a server without data.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with further arguments. `PORT` and `DIR` in them are replaced by its port and its folder.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        Self::on(free_port(), arguments).await
    }

    /// Starts one on a port of the caller's choice. A sentinel is the same program, with a configuration file.
    pub(crate) async fn on(port: u16, arguments: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!(
            "jobgate-redis-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let put = |text: &&str| text.replace("PORT", &port.to_string()).replace("DIR", dir.to_str().unwrap());
        let arguments: Vec<String> = arguments.iter().map(put).collect();
        let child = spawn(port, &arguments, &dir);
        let redis = Self { child, port, arguments, dir };
        redis.is_up().await;
        redis
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Executes a command directly, without jobgate. Retries when the connection is closed, as by a change of roles.
    pub(crate) async fn execute<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let answered = async {
            let mut again = tokio::time::interval(Duration::from_millis(5));
            loop {
                again.tick().await;
                let ready = async {
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    command.query_async(&mut connection).await
                };
                match ready.await {
                    Err(error) if error.is_io_error() || error.is_connection_dropped() => {}
                    answer => return answer.unwrap(),
                }
            }
        };
        tokio::time::timeout(LIMIT, answered).await.unwrap()
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &process]).status().unwrap().success());
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts it at the same address, without data.
    pub(crate) async fn restart_empty(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
        self.child = spawn(self.port, &self.arguments, &self.dir);
        self.is_up().await;
    }

    /// Waits until it answers: this one, and not another that bound the port first.
    async fn is_up(&self) {
        let info: String = self.execute(redis::cmd("INFO").arg("server")).await;
        let ours = format!("process_id:{}", self.child.id());
        assert!(info.lines().any(|line| line == ours), "{ours} is not the server on {}: {info}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A port without a listener, which no other test of this process gets.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let free = |_| {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    };
    (0..1_000).find_map(free).unwrap()
}

fn spawn(port: u16, arguments: &[String], dir: &std::path::Path) -> Child {
    let mut command = Command::new("redis-server");
    if !arguments.iter().any(|argument| argument == "--sentinel") {
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
    }
    command.args(arguments).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn();
    assert!(child.is_ok(), "redis-server cannot be started: install the package redis-server ({child:?})");
    child.unwrap()
}
