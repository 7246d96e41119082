//! A base URL with a typo: an answer from there is no statement about the jobs, and nothing is lost when it is
//! corrected.

use super::{BUDGET, Gateway, mind, open_streams};

const PACE: &str = "poll: { min_interval: 100ms, max_interval: 1s }";

#[tokio::test]
async fn a_typo_in_base_url_ends_no_job() {
    let mut gateway = Gateway::start(PACE).await;
    let streams = open_streams(&gateway, "").await;
    let good = mind(&gateway.url(0), "{ env: MIND_TOKEN }", BUDGET);
    let path = gateway.url(0).replace("/api", "/apj");
    let host = gateway.upstreams[0].supermetrics_url();
    for typo in [path, host] {
        let bad = mind(&typo, "{ env: MIND_TOKEN }", BUDGET);
        gateway.change(&[&bad], PACE, "sources.mind.base_url").await;
        let read = gateway.execute("", "mind", "a", Some("0ms")).await;
        assert_eq!(read, "RUNNING, stale: BAD_ANSWER", "{typo}");
        gateway.change(&[&good], PACE, "sources.mind.base_url").await;
        assert_eq!(gateway.execute("", "mind", "a", Some("0ms")).await, "RUNNING", "{typo}");
    }
    gateway.upstreams[0].handle().set_state("a", jobgate_simulator::MindBridgeStep::new("COMPLETE")).unwrap();
    for mut stream in streams {
        loop {
            let event = stream.short().await;
            if event == "ENDED SUCCEEDED" {
                break;
            }
            assert!(event.starts_with("CHANGED RUNNING"), "{event}");
        }
    }
}
