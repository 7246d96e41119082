//! The first minute: `jobgate demo`, as README's first command starts it, and what a person sees of it in a browser.

use serde_json::{Value, json};

use super::note;
use crate::support::browser::Browser;
use crate::support::process::Process;

const ANY_PORT: &str = "127.0.0.1:0";

/// Starts a demo on free ports; dropping it ends it.
pub(super) fn start_demo() -> Process {
    Process::start(&["demo", "--listen", ANY_PORT, "--admin-listen", ANY_PORT], &[])
}

async fn first_minute(browser: Browser) {
    let mut demo = None;
    let act = async |what: &str, _| {
        assert_eq!(what, "start");
        Value::String(format!("http://{}/", demo.insert(start_demo()).address("public").await))
    };
    note("first minute", browser, &browser.run("first_minute", &json!({}), act).await);
    let demo = demo.unwrap();
    demo.signal("TERM").await;
    demo.ended().await;
}

#[tokio::test]
async fn a_started_demo_shows_a_live_job_in_chromium() {
    first_minute(Browser::Chromium).await;
}

#[tokio::test]
async fn a_started_demo_shows_a_live_job_in_firefox() {
    first_minute(Browser::Firefox).await;
}
