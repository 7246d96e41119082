//! A process with a low limit of open files, and more client sockets than that: files of operators, upstreams and the
//! store are reserved.

use futures_util::future::join_all;
use jobgate_simulator::{Addresses, MindBridgeJob, Simulator};
use tokio::net::TcpStream;

use super::refusals::{Kept, good};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN};
use crate::support::wire;

/// A process that may have 256 open files, the text of its configuration, and its upstreams.
async fn limited() -> (Process, Scratch, String, Simulator) {
    // connections that send nothing are closed soon, so that those in the accept queue are accepted
    let rest = format!("server: {{ {}, header_timeout: 10s }}\n{}", super::SERVER, super::clients());
    let setup = Setup { rest, ..Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]) };
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let yaml = setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url());
    let yaml = yaml.replace("concurrency: 500", "concurrency: 8");
    let config = Scratch::new(&yaml);
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let gateway = Process::limited(64, 256, &["serve", "--config", config.path()], &env);
    (gateway, config, yaml, simulator)
}

#[tokio::test]
async fn a_low_limit_of_file_descriptors_is_logged_at_start() {
    let (mut gateway, _config, _, _simulator) = limited().await;
    let warned = "file descriptor limit below server.max_connections";
    gateway.find(warned, |line| (line.contains(warned) && line.contains("limit=256")).then_some(())).await;
}

#[tokio::test]
async fn idle_sockets_do_not_exhaust_file_descriptors() {
    let (mut gateway, config, yaml, _simulator) = limited().await;
    let (public, admin) = (gateway.address("public").await, gateway.address("admin").await);

    let mut client = Kept::open(public).await;
    client.send(&good()).await;
    assert_eq!(client.answer().await.0, 200);
    let idle = join_all((0..300).map(|_| TcpStream::connect(public))).await;
    assert!(idle.iter().all(Result::is_ok), "connections above the limit wait in the accept queue");
    for _ in 0..3 {
        assert_eq!(wire::get(admin, "/livez").await.status, 200);
        assert_eq!(wire::get(admin, "/metrics").await.status, 200);
    }
    client.send(&good()).await;
    assert_eq!(client.answer().await.0, 200, "the upstream is called");
    std::fs::write(config.path(), yaml.replace("name: busy", "name: busier")).unwrap();
    gateway.signal("HUP").await;
    let reloaded = "configuration reloaded";
    gateway.find(reloaded, |line| line.contains(reloaded).then_some(())).await;
    assert!(!gateway.output().contains("accept failed"), "{}", gateway.output());
    drop(idle);
}
