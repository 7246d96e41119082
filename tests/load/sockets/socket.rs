//! The client side of one socket: as little as can follow a stream, since it shares the machine with what it measures.
//! It has a few hundred bytes of state, checks only what it relies on, and leaves the rest of both protocols to the
//! tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// Bytes per read; on the stack, for the duration of the call only.
const READ: usize = 16 * 1024;
/// Source addresses of the sockets, since one address has some 28,000 ephemeral ports per minute.
const SOURCES: u8 = 32;
/// In the second byte of a frame: the length is in the next two bytes, and the payload is masked.
const LONG: u8 = 126;
const MASKED: u8 = 0x80;

/// The transport of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Carrier {
    /// `graphql-transport-ws`
    Websocket,
    /// GraphQL over Server-Sent Events
    Sse,
}

/// A subscribed socket.
#[derive(Debug)]
pub(super) struct Socket {
    carrier: Carrier,
    stream: TcpStream,
    unread: Vec<u8>,
}

/// The kind of a frame or an event.
#[derive(Debug)]
pub(super) enum Received {
    /// An update or another message, as text.
    Text(String),
    /// A message that requires this answer.
    Answer(Vec<u8>),
    /// A message without meaning here.
    Noise,
    /// The operation is complete.
    Complete,
}

impl Socket {
    /// Connects, and subscribes with this body.
    pub(super) async fn open(
        to: SocketAddr,
        path: &str,
        carrier: Carrier,
        number: usize,
        body: &str,
    ) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let last = u8::try_from(number % usize::from(SOURCES))? + 2;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { carrier, stream, unread: Vec::new() };
        match carrier {
            Carrier::Sse => socket.execute(path, body).await?,
            Carrier::Websocket => socket.upgrade(path, body).await?,
        }
        Ok(socket)
    }

    async fn execute(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: text/event-stream\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.head("HTTP/1.1 200 ").await
    }

    async fn upgrade(&mut self, path: &str, body: &str) -> anyhow::Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.head("HTTP/1.1 101 ").await?;
        let subscribe = format!(r#"{{"id":"1","type":"subscribe","payload":{body}}}"#);
        self.stream.write_all(&frame(0x1, br#"{"type":"connection_init"}"#)).await?;
        loop {
            if let Received::Text(text) = self.receive().await? {
                ensure!(text.contains("connection_ack"), "not acknowledged: {text}");
                break;
            }
        }
        Ok(self.stream.write_all(&frame(0x1, subscribe.as_bytes())).await?)
    }

    async fn head(&mut self, expected: &str) -> anyhow::Result<()> {
        loop {
            if let Some(end) = position(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                ensure!(head.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&head));
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// The next frame or event. Cancel safe.
    pub(super) async fn receive(&mut self) -> anyhow::Result<Received> {
        loop {
            let taken = match self.carrier {
                Carrier::Websocket => self.take_frame()?,
                Carrier::Sse => self.take_chunk()?,
            };
            match taken {
                Some(Received::Answer(answer)) => self.stream.write_all(&answer).await?,
                Some(received) => return Ok(received),
                None => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        loop {
            self.stream.readable().await?;
            match self.read() {
                Ok(0) => bail!("the server closed the connection"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ];
        let count = self.stream.try_read(&mut bytes)?;
        self.unread.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// One frame of a server: never masked, and here never fragmented.
    fn take_frame(&mut self) -> anyhow::Result<Option<Received>> {
        let [first, second, ..] = *self.unread.as_slice() else { return Ok(None) };
        let (from, length) = match (second, self.unread.get(2..4)) {
            (0..LONG, _) => (2, usize::from(second)),
            (LONG, Some(&[high, low])) => (4, usize::from(u16::from_be_bytes([high, low]))),
            (LONG, _) => return Ok(None),
            _ => bail!("a frame longer than any update"),
        };
        let Some(payload) = self.unread.get(from..from + length) else { return Ok(None) };
        let received = match first & 0x0f {
            0x1 => text(payload.to_vec())?,
            0x8 => bail!("closed by the server: {}", String::from_utf8_lossy(payload)),
            0x9 => Received::Answer(frame(0xa, payload)),
            _ => Received::Noise,
        };
        self.unread.drain(..from + length);
        Ok(Some(received))
    }

    /// One chunk; both servers put one event into each.
    fn take_chunk(&mut self) -> anyhow::Result<Option<Received>> {
        let Some(line) = position(&self.unread, b"\r\n") else { return Ok(None) };
        let size = self.unread.get(..line).and_then(|size| std::str::from_utf8(size).ok());
        let size = usize::from_str_radix(size.context("no size of a chunk")?, 16)?;
        ensure!(size > 0, "the stream ended");
        let from = line + 2;
        let Some(event) = self.unread.get(from..from + size + 2) else { return Ok(None) };
        let received = if event.starts_with(b":") { Received::Noise } else { text(event.to_vec())? };
        self.unread.drain(..from + size + 2);
        Ok(Some(received))
    }
}

fn text(bytes: Vec<u8>) -> anyhow::Result<Received> {
    let text = String::from_utf8(bytes)?;
    let complete = text.contains(r#""type":"complete""#) || text.starts_with("event: complete");
    Ok(if complete { Received::Complete } else { Received::Text(text) })
}

/// A frame of a client, masked with zeroes, which costs nothing.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    if let Ok(length @ 0..LONG) = u8::try_from(payload.len()) {
        frame.push(MASKED | length);
    } else {
        frame.push(MASKED | LONG);
        frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
