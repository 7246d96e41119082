//! Timeouts: pings, dead peers, slow readers, and the age of a socket. No test waits.

use super::*;

#[tokio::test(start_paused = true)]
async fn socket_without_connection_init_is_closed_after_the_timeout() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.socket().await;
    tokio::time::sleep(SECOND * 4).await;
    client.say(r#"{"type":"ping"}"#).await;
    client.receive().await;
    assert_eq!(client.end().await, (Some(4408), SECOND * 5));
    fixture.idle().await;
}

/// A client that does nothing but answer pings, as its library does by itself: when it received them, the close code,
/// and its age then.
async fn idle_until_closed() -> (Vec<Duration>, u16, Duration) {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    client.subscribe("1", "subscription{quiet}").await;
    let mut pings = Vec::new();
    let code = loop {
        let message = client.socket.next().await.unwrap().unwrap();
        if let Message::Close(frame) = message {
            break u16::from(frame.unwrap().code);
        }
        assert!(message.is_ping(), "{message:?}");
        pings.push(client.opened.elapsed());
    };
    let age = client.opened.elapsed();
    assert_eq!(client.end().await.0, None);
    fixture.idle().await;
    (pings, code, age)
}

#[tokio::test(start_paused = true)]
async fn idle_client_that_answers_pings_stays_until_maximum_age() {
    let (_, code, age) = idle_until_closed().await;
    assert_eq!(code, 1012);
    assert!((SECOND * 2880..=SECOND * 4320).contains(&age), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn socket_is_pinged_every_25_seconds() {
    let (pings, _, age) = idle_until_closed().await;
    assert!(pings.windows(2).all(|pair| pair[0] + SECOND * 25 == pair[1]));
    let expected = age.as_secs() / 25;
    assert!((expected - 1..=expected).contains(&(pings.len() as u64)), "{} pings in {age:?}", pings.len());
}

#[tokio::test(start_paused = true)]
async fn peer_that_misses_two_pings_is_disconnected() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    client.subscribe("1", "subscription{quiet}").await;
    // nothing is read from here on, so nothing is answered
    tokio::time::sleep(SECOND * 94).await;
    assert_eq!(fixture.running(), 1);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(fixture.running(), 0);
    fixture.idle().await;
    let mut left = Vec::new();
    client.socket.get_mut().read_to_end(&mut left).await.unwrap();
    assert_eq!(left, [0x89, 0, 0x89, 0], "two pings, and no close frame, since no peer reads it");
}

#[tokio::test(start_paused = true)]
async fn peer_stalled_for_a_minute_stays_connected() {
    for (begins, room) in [0, 1, 10_000, 24_999, 25_001, 59_999, 60_001]
        .into_iter()
        .flat_map(|begins| [(begins, 512), (begins, 65_536)])
    {
        let what = format!("standing still from {begins} ms, with room for {room} bytes");
        let fixture = fixture(StreamSettings::default());
        let mut client = fixture.narrow_socket(room).await;
        client.say(INIT).await;
        client.receive().await;
        client.subscribe("1", "subscription{newest}").await;
        // until then it responds to pings
        let listening = async { while client.socket.next().await.unwrap().unwrap().is_ping() {} };
        assert!(tokio::time::timeout(Duration::from_millis(begins), listening).await.is_err(), "{what}");
        for (value, seconds) in [(1, 30), (2, 29), (1000, 1)] {
            fixture.value.send_replace(value);
            tokio::time::sleep(SECOND * seconds).await;
        }
        assert_eq!(fixture.streams.counts().websocket, 1, "{what}");
        let mut newest = None;
        while let Some(value) = client.receive().await["payload"]["data"]["newest"].as_str() {
            newest = value.trim().parse().ok();
        }
        assert_eq!(newest, Some(1000), "{what}");
        client.subscribe("2", "{hello}").await;
        assert_eq!(client.receive().await["type"], "next", "{what}");
        drop(client);
        fixture.idle().await;
    }
}

/// A reader that pauses while a thousand values are published: the values that it received, and the message after.
async fn paused_reader() -> (Vec<usize>, Value) {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.narrow_socket(4096).await;
    client.say(INIT).await;
    client.receive().await;
    client.subscribe("1", "subscription{newest}").await;
    for value in 1..=1000 {
        fixture.value.send_replace(value);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let mut received = Vec::new();
    let last = loop {
        let message = client.receive().await;
        match message["payload"]["data"]["newest"].as_str() {
            Some(value) => received.push(value.trim().parse::<usize>().unwrap()),
            None => break message,
        }
    };
    drop(client);
    fixture.idle().await;
    (received, last)
}

#[tokio::test(start_paused = true)]
async fn paused_reader_receives_the_newest_state_and_complete() {
    let (received, last) = paused_reader().await;
    assert!(received.is_sorted() && received.last() == Some(&1000), "{received:?}");
    assert_eq!(last["type"], "complete");
}

#[tokio::test(start_paused = true)]
async fn updates_for_a_paused_reader_are_bounded() {
    let (received, _) = paused_reader().await;
    assert!(received.len() <= 6, "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn stalled_reader_is_disconnected_at_the_write_deadline() {
    let fixture = fixture(StreamSettings { ping_interval: SECOND * 600, ..StreamSettings::default() });
    let mut client = fixture.narrow_socket(512).await;
    client.say(INIT).await;
    client.receive().await;
    client.subscribe("1", "subscription{newest}").await;
    tokio::time::sleep(SECOND).await;
    fixture.value.send_replace(1);
    tokio::time::sleep(SECOND * 69).await;
    assert_eq!(fixture.running(), 1);
    tokio::time::sleep(SECOND * 2).await;
    fixture.idle().await;
    assert_eq!(client.end().await.0, None);
}

#[tokio::test(start_paused = true)]
async fn drain_does_not_wait_for_a_stalled_reader() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.narrow_socket(512).await;
    client.say(INIT).await;
    client.receive().await;
    client.subscribe("1", "subscription{newest}").await;
    tokio::time::sleep(SECOND).await;
    fixture.value.send_replace(1);
    tokio::time::sleep(SECOND).await;
    let start = Instant::now();
    fixture.streams.drain(SECOND * 10).await;
    fixture.idle().await;
    assert!(start.elapsed() <= session::CLOSE_TIMEOUT + SECOND, "{:?}", start.elapsed());
}
