//! `/metrics` of a real gateway: every line is one that Prometheus reads, and says how things stand.

use jobgate::simulator::{MindBridgeJob, MindBridgeStep};

use crate::support::server::Setup;
use crate::support::streams::{Watcher, WebSocket};
use crate::support::wire;

/// A bearer in the form of a JWT that ends on 1 January 2100 and is signed by nobody: `{"exp":4102444800}`.
const ENDS: &str = "e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln";

#[tokio::test]
async fn the_metrics_say_how_sources_streams_and_the_store_stand() {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    setup.secrets[0] = ENDS.to_owned();
    setup.scenario.mindbridge.token = ENDS.into();
    let rig = setup.start().await;
    let mut watcher = Watcher::open(rig.public, WebSocket, &["a"]).await;
    assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");

    let reply = wire::get(rig.admin, "/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("application/openmetrics-text; version=1.0.0"), "{}", reply.head);
    for line in [
        "jobgate_source_credential_expiry_timestamp_seconds{source=\"mind\"} 4102444800.0",
        "jobgate_source_credential_state{source=\"mind\",state=\"in_force\"} 1.0",
        "jobgate_source_health{source=\"mind\",health=\"healthy\"} 1.0",
        "jobgate_source_health{source=\"metrics\",health=\"untried\"} 1.0",
        "jobgate_streams_open{transport=\"websocket\"} 1.0",
        "jobgate_jobs_followed 1.0",
        "jobgate_store_degraded 0.0",
        "# EOF",
    ] {
        assert!(reply.body.lines().any(|said| said == line), "{line} is missing:\n{}", reply.body);
    }
    assert!(
        !reply.body.contains("credential_expiry_timestamp_seconds{source=\"metrics\"}"),
        "its end is not known"
    );
    assert_eq!(wire::get(rig.public, "/metrics").await.status, 404, "the public door tells nobody");
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
}
