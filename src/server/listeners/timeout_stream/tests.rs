//! Tests of the timeouts of a connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
    idle: Duration::from_mins(1),
    header: Duration::from_secs(10),
    write: Duration::from_secs(20),
};

const HEAD_MAX: usize = 1000;

fn wire() -> (TimeoutStream<DuplexStream>, DuplexStream, RequestActivity) {
    let (memory, far) = tokio::io::duplex(100);
    let activity = RequestActivity::default();
    (TimeoutStream::new(memory, TIMEOUTS, HEAD_MAX, activity.clone()), far, activity)
}

/// The second in which reading fails, while a byte arrives each second if the peer trickles.
async fn gives_up(wire: &mut TimeoutStream<DuplexStream>, far: &mut DuplexStream, trickles: bool) -> u64 {
    let began = Instant::now();
    loop {
        if trickles {
            far.write_all(b"x").await.unwrap();
        }
        let read = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                wire.read_u8().await?;
            }
        });
        let read: Result<io::Result<()>, _> = read.await;
        if let Ok(Err(error)) = read {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            return began.elapsed().as_secs();
        }
        if began.elapsed() > Duration::from_secs(200) {
            return u64::MAX;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_head_and_idle_connection_have_separate_timeouts() {
    for (trickles, expected) in [(false, 10), (true, 10)] {
        let (mut wire, mut far, _) = wire();
        let lasted = gives_up(&mut wire, &mut far, trickles).await;
        assert_eq!(lasted, expected, "a new connection: {trickles}");
    }
    for (trickles, expected) in [(false, 60), (true, 10)] {
        let (mut wire, mut far, activity) = wire();
        activity.begin();
        drop(activity.end_with(Body::empty()));
        assert_eq!(gives_up(&mut wire, &mut far, trickles).await, expected, "between two: {trickles}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_starts_the_idle_timeout_again() {
    let (mut wire, mut far, activity) = wire();
    let request = || {
        activity.begin();
        drop(activity.end_with(Body::empty()));
    };
    for _ in 0..3 {
        request();
        let waits = tokio::time::timeout(Duration::from_secs(50), wire.read_u8());
        assert!(waits.await.is_err(), "the connection is open until 60 s after the last request");
    }
    request();
    assert_eq!(gives_up(&mut wire, &mut far, false).await, 60);
}

#[tokio::test(start_paused = true)]
async fn idle_timeout_starts_when_the_answer_is_sent() {
    let (mut wire, mut far, activity) = wire();
    activity.begin();
    drop(activity.end_with(Body::empty()));
    wire.flush().await.unwrap();
    let mut taken = [0; 100];
    for _ in 0..3 {
        let waits = tokio::time::timeout(Duration::from_secs(50), wire.read_u8());
        assert!(waits.await.is_err(), "the peer takes the answer");
        wire.write_all(&[0; 100]).await.unwrap();
        far.read_exact(&mut taken).await.unwrap();
    }
    wire.flush().await.unwrap();
    assert_eq!(gives_up(&mut wire, &mut far, false).await, 60);
}

#[tokio::test(start_paused = true)]
async fn connection_of_a_running_request_has_no_idle_timeout() {
    let (mut wire, mut far, activity) = wire();
    activity.begin();
    assert_eq!(gives_up(&mut wire, &mut far, false).await, u64::MAX);
}

#[tokio::test(start_paused = true)]
async fn only_a_stalled_peer_hits_the_write_timeout() {
    let (mut hung, _far, _) = wire();
    let began = Instant::now();
    let error = hung.write_all(&[0; 1000]).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.write));

    let (mut wire, mut far, _) = wire();
    let slow = async {
        let mut taken = [0; 100];
        for _ in 0..20 {
            tokio::time::sleep(TIMEOUTS.write.checked_sub(Duration::from_secs(1)).unwrap()).await;
            far.read_exact(&mut taken).await.unwrap();
        }
    };
    let (written, ()) = tokio::join!(wire.write_all(&[0; 2000]), slow);
    written.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closed_connection_drains_the_input_of_an_active_peer() {
    for (lingers, sends, hangs_up, expected) in [
        (false, false, false, 0),
        (false, true, false, LINGERING_TIMEOUT.as_secs()),
        (true, false, false, LINGERING_TIMEOUT.as_secs()),
        (true, true, true, 0),
    ] {
        let (mut wire, mut far, activity) = wire();
        activity.begin();
        if lingers {
            activity.lingering_close();
        }
        if sends {
            far.write_all(b"more").await.unwrap();
        }
        let far = (!hangs_up).then_some(far);
        let began = Instant::now();
        wire.shutdown().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), expected, "{lingers} {sends} {hangs_up}");
        drop(far);
    }
}

#[test]
fn short_buffers_are_joined() {
    let mut parts = [0; ONE_PART];
    let long = vec![b'x'; ONE_PART - 1];
    for (bufs, expected) in
        [(&[&b"ab"[..], b"", b"c"][..], Some(&b"abc"[..])), (&[], Some(b"")), (&[&long, b"yz"], None)]
    {
        let bufs: Vec<io::IoSlice<'_>> = bufs.iter().map(|buf| io::IoSlice::new(buf)).collect();
        assert_eq!(joined(&bufs, &mut parts), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn upgraded_connection_has_a_write_timeout_but_no_read_timeout() {
    let (mut wire, mut far, activity) = wire();
    activity.begin();
    drop(activity.upgrade(Body::empty()));
    wire.write_all(b"HTTP/1.1 101 S\r\n\r\n").await.unwrap();
    assert_eq!(gives_up(&mut wire, &mut far, false).await, u64::MAX);
    let began = Instant::now();
    let error = wire.write_all(&[0; 200]).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, TIMEOUTS.write));
}

#[tokio::test(start_paused = true)]
async fn upgrade_response_headers_use_rfc_6455_case() {
    let (mut wire, mut far, activity) = wire();
    drop(activity.upgrade(Body::empty()));
    let head = "HTTP/1.1 101 S\r\nsec-websocket-protocol: a\r\nsec-websocket-accept: b\r\n\r\n";
    let spelled = "HTTP/1.1 101 S\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Accept: b\r\n\r\n";
    for expected in [spelled, head] {
        wire.write_all(head.as_bytes()).await.unwrap();
        let mut sent = vec![0; head.len()];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}
