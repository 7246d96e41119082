//! The public listener in process, on use cases under a test's control: no server, no socket.

use std::time::Duration;

use jobgate::inbound::client_limits::ClientLimits;
use jobgate::inbound::graphql::document::admission::Admission;
use jobgate::inbound::graphql::document::limits::DocumentLimits;
use jobgate::inbound::graphql::execution::endpoint::GraphqlEndpoint;
use jobgate::inbound::graphql::schema;
use jobgate::inbound::http::layers::LayerSettings;
use jobgate::inbound::router;
use jobgate::inbound::router::PublicRoutes;
use jobgate::inbound::streams::{StreamRegistry, StreamSettings};
use jobgate::jobs::Jobs;
use tokio_util::task::TaskTracker;

/// The router as the gateway builds it with its defaults, and its streams.
pub(crate) fn public(jobs: &Jobs) -> (PublicRoutes, StreamRegistry) {
    let (router, streams, _) = public_with(jobs, Some(jobs.clone()));
    (router, streams)
}

/// The same, with or without plans, and its endpoint.
pub(crate) fn public_with(
    jobs: &Jobs,
    plans: Option<Jobs>,
) -> (PublicRoutes, StreamRegistry, GraphqlEndpoint) {
    public_admitting(jobs, Admission { plans, ..Admission::default() })
}

/// The same, with other limits of admission.
pub(crate) fn public_admitting(
    jobs: &Jobs,
    admission: Admission,
) -> (PublicRoutes, StreamRegistry, GraphqlEndpoint) {
    let tasks = TaskTracker::new();
    let streams = StreamRegistry::new(StreamSettings::default(), move |task| drop(tasks.spawn(task)));
    let types = schema::input_types().unwrap();
    let schema = schema::build(jobs.clone(), true);
    let wait = Duration::from_secs(10);
    let endpoint = GraphqlEndpoint::new(
        schema,
        types,
        jobs.clone(),
        DocumentLimits::default(),
        admission,
        wait,
        streams.clone(),
    );
    let layers = LayerSettings::default();
    (router::public(endpoint.clone(), jobs.clone(), ClientLimits::default(), &layers), streams, endpoint)
}
