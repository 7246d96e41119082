//! The public door in process, on use cases under a test's control: no server, no socket.

use std::time::Duration;

use axum::Router;
use jobgate::inbound::client_limits::ClientLimits;
use jobgate::inbound::graphql::http::{Admission, Door};
use jobgate::inbound::graphql::limits::Limits;
use jobgate::inbound::graphql::schema;
use jobgate::inbound::layers::Settings;
use jobgate::inbound::router;
use jobgate::inbound::streams::{StreamSettings, Streams};
use jobgate::jobs::Jobs;
use tokio_util::task::TaskTracker;

/// The door as the gateway builds it with its defaults, and its streams.
pub(crate) fn public(jobs: &Jobs) -> (Router, Streams) {
    let tasks = TaskTracker::new();
    let streams = Streams::new(StreamSettings::default(), move |task| drop(tasks.spawn(task)));
    let types = schema::input_types().unwrap();
    let schema = schema::build(jobs.clone(), true);
    let wait = Duration::from_secs(10);
    let door = Door::new(
        schema,
        types,
        jobs.clone(),
        Limits::default(),
        Admission::default(),
        wait,
        streams.clone(),
    );
    (router::public(door, jobs.clone(), ClientLimits::default(), &Settings::default()), streams)
}
