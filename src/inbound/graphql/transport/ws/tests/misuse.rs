//! Every known misuse of the protocol, with the close code of the specification.

use super::*;

/// An action of a client.
enum Do {
    Say(&'static str),
    SayAll(&'static [&'static str]),
    Long(usize),
    Binary,
    /// First byte of a frame, whether it is masked, and the payload.
    Frame(u8, bool, &'static [u8]),
    LongPing,
    LongFragments,
    Nothing,
}

use Do::{Binary, Frame, Long, LongFragments, LongPing, Nothing, Say, SayAll};

const QUIET: &str = r#"{"id":"1","type":"subscribe","payload":{"query":"subscription{quiet}"}}"#;

/// Before the acknowledgement.
const BEFORE: [(Do, u16); 23] = [
    (Nothing, 4408),
    (Say(""), 4400),
    (Say("hello"), 4400),
    (Say(r#"{"type":"connection_init""#), 4400),
    (Say("[]"), 4400),
    (Say("null"), 4400),
    (Say("\"connection_init\""), 4400),
    (Say("{}"), 4400),
    (Say(r#"{"type":1}"#), 4400),
    (Say(r#"{"type":"connection_init","type":"ping"}"#), 4400),
    (Say(r#"{"type":"connection_init","payload":[]}"#), 4400),
    (Say(r#"{"type":"connection_init","payload":"Bearer key"}"#), 4400),
    (Say(r#"{"type":"connection_ack"}"#), 4400),
    (Say(r#"{"type":"start","id":"1","payload":{"query":"{hello}"}}"#), 4400),
    (Binary, 4400),
    (Say(QUIET), 4401),
    (Say(r#"{"type":"stop","id":"1"}"#), 4400),
    (Say(r#"{"type":"connection_init","payload":{"authorization":"Bearer wrong"}}"#), 4401),
    (Say(r#"{"type":"connection_init","payload":{"authorization":"wrong"}}"#), 4401),
    (Say(r#"{"type":"connection_init","payload":{"headers":{"Authorization":"Bearer wrong"}}}"#), 4401),
    (Say(r#"{"type":"connection_init","payload":{"authorization":"Basic key"}}"#), 4401),
    (Say(r#"{"type":"connection_init","payload":{"authorization":{"bearer":"key"}}}"#), 4401),
    (
        Say(
            r#"{"type":"connection_init","payload":{"authorization":"Bearer key","Authorization":"Bearer other"}}"#,
        ),
        4401,
    ),
];

/// After it.
const AFTER: [(Do, u16); 26] = [
    (Say(INIT), 4429),
    (SayAll(&[QUIET, INIT]), 4429),
    (SayAll(&[QUIET, QUIET]), 4409),
    (SayAll(&[QUIET, r#"{"id":"1","type":"subscribe","payload":{"query":"{hello}"}}"#]), 4409),
    (Say(r#"{"type":"subscribe","payload":{"query":"{hello}"}}"#), 4400),
    (Say(r#"{"id":1,"type":"subscribe","payload":{"query":"{hello}"}}"#), 4400),
    (Say(r#"{"id":"","type":"subscribe","payload":{"query":"{hello}"}}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe"}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":"{hello}"}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":{}}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":{"query":1}}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":{"query":"{hello}","variables":[]}}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":{"query":"{hello}","operationName":1}}"#), 4400),
    (Say(r#"{"id":"1","type":"subscribe","payload":{"query":"{hello}","extensions":"x"}}"#), 4400),
    (Say(r#"{"id":"1","type":"next","payload":{"data":null}}"#), 4400),
    (Say(r#"{"type":"complete"}"#), 4400),
    (Say(r#"{"type":"ping","payload":"x"}"#), 4400),
    (Say(r#"{"type":"pong","payload":1}"#), 4400),
    (Long(64 * 1024 + 1), 1009),
    (LongFragments, 1009),
    // text that is not UTF-8; a frame that is not masked; a reserved bit; an unknown opcode; a control frame that is
    // too long, or in fragments
    (Frame(0x81, true, b"\xff\xfe"), 1007),
    (Frame(0x81, false, b"{}"), 1002),
    (Frame(0xc1, true, b"{}"), 1002),
    (Frame(0x83, true, b"{}"), 1002),
    (LongPing, 1002),
    (Frame(0x09, true, b"x"), 1002),
];

impl Client {
    async fn misuse(&mut self, what: &Do) {
        match what {
            Say(text) => self.say(text).await,
            SayAll(texts) => {
                for text in *texts {
                    self.say(text).await;
                }
            }
            Long(bytes) => self.say(&"x".repeat(*bytes)).await,
            Binary => self.socket.send(Message::binary(INIT)).await.unwrap(),
            Frame(first, masked, payload) => self.frame(*first, *masked, payload).await,
            LongPing => self.frame(0x89, true, &[b'x'; 126]).await,
            LongFragments => {
                let part = vec![b' '; 40 * 1024];
                self.frame(0x01, true, &part).await;
                self.frame(0x80, true, &part).await;
            }
            Nothing => {}
        }
    }

    /// A frame as bytes, with the mask 0, which leaves the payload unchanged.
    async fn frame(&mut self, first: u8, masked: bool, payload: &[u8]) {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match u16::try_from(payload.len()).unwrap() {
            length @ ..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            length => {
                bytes.push(mask | 0x7e);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(if masked { &[0; 4][..] } else { &[] });
        bytes.extend(payload);
        // the session may close before it has read all of it
        drop(self.socket.get_mut().write_all(&bytes).await);
    }
}

#[tokio::test(start_paused = true)]
async fn each_protocol_violation_has_its_close_code() {
    let fixture = fixture(StreamSettings::default());
    for (number, (what, code)) in BEFORE.iter().enumerate() {
        let mut client = fixture.socket().await;
        client.misuse(what).await;
        assert_eq!(client.end().await.0, Some(*code), "before the ack, case {number}");
    }
    for (number, (what, code)) in AFTER.iter().enumerate() {
        let mut client = fixture.ready().await;
        client.misuse(what).await;
        assert_eq!(client.end().await.0, Some(*code), "after the ack, case {number}");
    }
    fixture.idle().await;
}

#[tokio::test(start_paused = true)]
async fn overlong_operation_id_closes_the_socket() {
    let fixture = fixture(StreamSettings::default());
    let mut client = fixture.ready().await;
    client.subscribe(&"x".repeat(128), "subscription{quiet}").await;
    client.silence().await;
    assert_eq!(fixture.running(), 1);
    client.subscribe(&"x".repeat(129), "subscription{quiet}").await;
    assert_eq!(client.end().await.0, Some(4400));
    fixture.idle().await;
}
