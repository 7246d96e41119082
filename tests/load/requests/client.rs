//! A plain HTTP/1.1 client over TCP: sends prepared bytes, reads answers of a known length, and checks each one.
//! It does as little as it can, since it shares the machine with the server it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::cases::Expected;

/// The longest answer that is read.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// How much longer than planned a round may take before it counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(30);
/// What every answer must start with.
const OK: &[u8] = b"HTTP/1.1 200 ";

/// The result of load on a server.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
    /// Of each request, in microseconds.
    pub(super) latencies: Vec<u32>,
}

/// One keep-alive connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Sends one request on a new connection, and returns the whole answer: its head and its body.
pub(super) async fn execute(address: SocketAddr, request: &[u8]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let mut connection = Connection::open(address).await?;
    let head = timeout(HUNG_AFTER, connection.exchange(request)).await.context("no answer")??;
    let (head, body) = connection.buffer.split_at(head);
    Ok((head.to_vec(), body.to_vec()))
}

/// Keeps `connections` requests in flight for the given time. Every answer is checked; the first wrong one is an error.
pub(super) async fn drive(
    address: SocketAddr,
    request: &Arc<[u8]>,
    expected: &Arc<Expected>,
    connections: u32,
    time: Duration,
) -> anyhow::Result<Load> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in open {
        tasks.spawn(keep_asking(connection, Arc::clone(request), Arc::clone(expected), start + time));
    }
    let mut load = Load::default();
    while let Some(ended) = timeout(time + HUNG_AFTER, tasks.join_next()).await.context("a round hangs")? {
        load.latencies.extend(ended??);
    }
    load.elapsed = start.elapsed();
    Ok(load)
}

async fn keep_asking(
    mut connection: Connection,
    request: Arc<[u8]>,
    expected: Arc<Expected>,
    end: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut sent = Instant::now();
    while sent < end {
        let head = connection.exchange(&request).await?;
        let answered = Instant::now();
        latencies.push(u32::try_from((answered - sent).as_micros()).unwrap_or(u32::MAX));
        let body = connection.buffer.split_at(head).1;
        ensure!(expected.fits(body), "an answer differs: {}", String::from_utf8_lossy(body));
        sent = Instant::now();
    }
    Ok(latencies)
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(256 * 1024) })
    }

    /// Sends a request and reads the answer into the buffer. Returns the length of its head.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (mut head, mut whole) = (0, None);
        while whole.is_none_or(|whole| self.buffer.len() < whole) {
            ensure!(self.buffer.len() < ANSWER_MAX, "an answer is longer than {ANSWER_MAX} bytes");
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if whole.is_none()
                && let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                head = end + 4;
                whole = Some(head + content_length(self.buffer.split_at(head).0)?);
            }
        }
        if !self.buffer.starts_with(OK) {
            bail!("an answer is not 200: {}", String::from_utf8_lossy(&self.buffer));
        }
        ensure!(whole == Some(self.buffer.len()), "bytes behind the end of an answer");
        Ok(head)
    }
}

/// The fields of an answer's head, names in lower case.
pub(super) fn fields(head: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let head = std::str::from_utf8(head).context("the head of an answer is not text")?;
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    Ok(fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect())
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            line.split_at_checked(NAME.len()).filter(|(name, _)| name.eq_ignore_ascii_case(NAME))
        })
        .context("an answer without content-length")?;
    Ok(std::str::from_utf8(line.1)?.trim().parse()?)
}
