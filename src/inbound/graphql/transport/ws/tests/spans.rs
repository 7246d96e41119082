//! The spans of a socket, through the whole router.

use super::upgrades::connect;
use super::*;
use crate::telemetry::trace::testing::RecordedSpans;

#[tokio::test(start_paused = true)]
async fn socket_open_for_an_hour_keeps_no_span_open() {
    let spans = RecordedSpans::start();
    let hour = Duration::from_hours(1);
    let fixture = fixture(StreamSettings { max_age: hour * 10, ..StreamSettings::default() });
    let mut client = connect(&fixture, Some("Bearer key")).await.unwrap();
    client.say(INIT).await;
    assert_eq!(client.receive().await, json!({ "type": "connection_ack" }));
    client.subscribe("1", "subscription{quiet}").await;
    let reading = async {
        loop {
            client.socket.next().await.unwrap().unwrap();
        }
    };
    assert!(tokio::time::timeout(hour, reading).await.is_err(), "only pings");
    assert_eq!(fixture.running(), 1, "the subscription still runs");
    let mut names: Vec<String> = spans.ended().iter().map(|span| span.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["GET /graphql", "subscription"]);
    drop(client);
    fixture.idle().await;
    assert!(spans.ended().is_empty(), "the end of a socket is no call");
}
