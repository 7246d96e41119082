//! What needs a real connection: cut, closed, padded and compressed answers, and the control endpoints.

use reqwest::{Client, Method, StatusCode, redirect::Policy};

use super::*;
use crate::{Addresses, Simulator};

#[expect(
    clippy::disallowed_methods,
    reason = "an independent client: the simulator tests the gateway's client"
)]
fn client() -> Client {
    // Another test of this process may have installed one; either way one is installed.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let builder = Client::builder().redirect(Policy::none()).no_proxy();
    builder.tls_certs_only([]).build().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "see `client`")]
async fn call(
    client: &Client,
    method: Method,
    url: &str,
    bearer: &str,
    body: &Value,
) -> Result<(StatusCode, String), reqwest::Error> {
    let request = client.request(method.clone(), url).bearer_auth(bearer);
    let request = if body.is_null() {
        request
    } else {
        request.header("content-type", "application/json").body(body.to_string())
    };
    let response = request.send().await?;
    Ok((response.status(), response.text().await?))
}

async fn simulator() -> Simulator {
    simulator_at(Addresses::ephemeral()).await
}

async fn simulator_at(addresses: Addresses) -> Simulator {
    let scenario = scenario(
        vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])],
        vec![SupermetricsJob::new("q", &[(0, "RUNNING")])],
    );
    Simulator::start(scenario, addresses).await.unwrap()
}

#[tokio::test]
async fn broken_connections_and_bodies_reach_the_client_as_scripted() {
    let simulator = simulator().await;
    let client = client();
    let url = format!("{}/v1/async-results/a", simulator.mindbridge_url());
    let send = async || call(&client, Method::GET, &url, TOKEN, &Value::Null).await;
    let fault = |kind| simulator.handle().push_fault(SimFault::next(SimUpstream::MindBridge, 1, kind));
    let whole = send().await.unwrap().1;

    fault(FaultKind::CloseBeforeHeaders);
    let error = send().await.unwrap_err();
    assert!(error.is_request(), "no response at all: {error:?}");

    fault(FaultKind::TruncatedBody);
    let error = send().await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "the headers arrived, the body did not: {error:?}");

    fault(FaultKind::MalformedJson);
    let (status, text) = send().await.unwrap();
    assert_eq!((status, text.as_str()), (StatusCode::OK, whole.split_at(whole.len() / 2).0));

    for kind in [FaultKind::OversizedBody { bytes: 3 << 20 }, FaultKind::GzipBomb { bytes: 3 << 20 }] {
        fault(kind.clone());
        let (_, text) = send().await.unwrap();
        assert_eq!((text.len(), text.trim_start()), ((3 << 20) + whole.len(), whole.as_str()), "{kind:?}");
    }
    assert_eq!(simulator.handle().record().len(), 6);
    assert!(
        simulator
            .handle()
            .record()
            .iter()
            .all(|request| request.ended.is_some() && request.violation.is_none())
    );
}

#[tokio::test]
async fn held_requests_are_in_flight_together_until_released() {
    let simulator = simulator().await;
    let handle = simulator.handle();
    handle.push_fault(SimFault::always(SimUpstream::Supermetrics, FaultKind::Hold).on(Endpoint::Status));
    let client = client();
    let url = format!("{}/query/status?schedule_id=q", simulator.supermetrics_url());
    let calls = (0..3).map(|_| call(&client, Method::GET, &url, KEY, &Value::Null));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), async {
        handle.wait_for_requests(3).await;
        assert_eq!(handle.max_in_flight(SimUpstream::Supermetrics), 3);
        assert!(handle.record().iter().all(|request| request.ended.is_none() && request.status.is_none()));
        handle.release();
    });
    assert!(answers.into_iter().all(|answer| answer.unwrap().0 == StatusCode::OK));
    assert_eq!(handle.max_in_flight(SimUpstream::MindBridge), 0);
    let record: Vec<RecordedRequest> = handle.record();
    assert!(
        record.iter().all(|request| request.ended >= Some(request.started) && request.fault == Some("hold"))
    );
}

/// A client of the control endpoints and of the Supermetrics API.
struct ControlClient {
    simulator: Simulator,
    client: Client,
}

impl ControlClient {
    async fn new() -> Self {
        Self { simulator: simulator().await, client: client() }
    }

    /// Sends a control request: the status, and the JSON of the answer, if it has a body.
    async fn control(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let url = format!("http://{}/_sim/{path}", self.simulator.addresses().supermetrics);
        let answer = call(&self.client, method, &url, "", &body).await.unwrap();
        (answer.0.as_u16(), serde_json::from_str::<Value>(&answer.1).unwrap_or_default())
    }

    /// Reads the status of a job: the status of the answer, and its text.
    async fn read(&self, id: &str) -> (u16, String) {
        let url = format!("{}/query/status?schedule_id={id}", self.simulator.supermetrics_url());
        let (status, text) = call(&self.client, Method::GET, &url, KEY, &Value::Null).await.unwrap();
        (status.as_u16(), text)
    }

    /// Reads the status of a job: the status of the answer, and the job's.
    async fn job_status(&self, id: &str) -> (u16, Value) {
        let (status, text) = self.read(id).await;
        (status, serde_json::from_str::<Value>(&text).unwrap()["meta"]["status_code"].clone())
    }

    /// Adds a queued job.
    async fn add_job(&self, id: &str) {
        let job = json!({"id": id, "steps": [{"status": "QUEUED", "at": "0s"}]});
        assert_eq!(self.control(Method::POST, "jobs", job).await.0, 204);
    }

    async fn recorded(&self) -> Value {
        self.control(Method::GET, "requests", Value::Null).await.1
    }
}

#[tokio::test]
async fn control_endpoint_adds_a_job() {
    let client = ControlClient::new().await;
    client.add_job("new").await;
    assert_eq!(client.job_status("new").await, (200, json!("QUEUED")));
}

#[tokio::test]
async fn control_endpoint_sets_the_state_of_a_job() {
    let client = ControlClient::new().await;
    client.add_job("new").await;
    let state = json!({"status": "SUCCESS"});
    assert_eq!(client.control(Method::POST, "jobs/new/state", state).await.0, 204);
    assert_eq!(client.job_status("new").await, (200, json!("SUCCESS")));
}

#[tokio::test]
async fn control_endpoint_sets_the_anomalies_of_the_list() {
    let client = ControlClient::new().await;
    let url = format!("{}/query/history?ds_ids=GAWA", client.simulator.supermetrics_url());
    assert_eq!(client.control(Method::PUT, "list", json!({"refuse": 403})).await.0, 204);
    assert_eq!(call(&client.client, Method::GET, &url, KEY, &Value::Null).await.unwrap().0, 403);
    assert_eq!(client.control(Method::PUT, "list", json!({})).await.0, 204);
    assert_eq!(call(&client.client, Method::GET, &url, KEY, &Value::Null).await.unwrap().0, 200);
}

#[tokio::test]
async fn control_endpoint_sets_the_clock() {
    let client = ControlClient::new().await;
    assert_eq!(client.control(Method::PUT, "clock", json!({"skew": "-1h"})).await.0, 204);
    let url = format!("{}/query/history?ds_ids=GAWA", client.simulator.supermetrics_url());
    let (_, text) = call(&client.client, Method::GET, &url, KEY, &Value::Null).await.unwrap();
    let until = serde_json::from_str::<Value>(&text).unwrap()["meta"]["filter"]["until"].clone();
    assert!(until.as_str().unwrap().starts_with("2025-12-31T23:"), "{until}");
}

#[tokio::test]
async fn control_endpoint_counts_the_requests_of_each_endpoint() {
    let client = ControlClient::new().await;
    let url = format!("{}/query/history?ds_ids=GAWA", client.simulator.supermetrics_url());
    call(&client.client, Method::GET, &url, KEY, &Value::Null).await.unwrap();
    client.read("q").await;
    client.read("q").await;
    let expected = json!({"one": 0, "query": 0, "status": 2, "list": 1, "unexpected": 0});
    assert_eq!(client.recorded().await["received"], expected);
}

#[tokio::test]
async fn control_endpoint_lists_the_jobs() {
    let client = ControlClient::new().await;
    client.add_job("new").await;
    assert_eq!(client.control(Method::GET, "jobs", Value::Null).await.1, json!({"ids": ["q", "new"]}));
}

#[tokio::test]
async fn control_endpoint_removes_a_job() {
    let client = ControlClient::new().await;
    client.add_job("new").await;
    assert_eq!(client.control(Method::DELETE, "jobs/new", Value::Null).await.0, 204);
    assert_eq!(client.job_status("new").await.0, 404);
}

#[tokio::test]
async fn control_endpoint_adds_a_fault() {
    let client = ControlClient::new().await;
    let fault = json!({"times": 1, "kind": {"answer": {"status": 503}}});
    assert_eq!(client.control(Method::POST, "faults", fault).await.0, 204);
    assert_eq!(client.read("q").await.0, 503);
}

/// Control requests are not among them.
#[tokio::test]
async fn control_endpoint_lists_the_recorded_requests() {
    let client = ControlClient::new().await;
    client.read("q").await;
    client.add_job("new").await;
    client.read("new").await;
    let fault = json!({"times": 1, "kind": {"answer": {"status": 503}}});
    client.control(Method::POST, "faults", fault).await;
    client.read("q").await;
    client.read("absent").await;
    let record = client.recorded().await;
    let statuses: Vec<_> =
        record["requests"].as_array().unwrap().iter().map(|it| it["status"].clone()).collect();
    assert_eq!(statuses, [200, 200, 503, 404]);
    assert_eq!(record["max_in_flight"], 1);
    assert_eq!(record["requests"][0]["auth"], "bearer");
}

#[tokio::test]
async fn control_endpoint_clears_the_recorded_requests() {
    let client = ControlClient::new().await;
    client.read("q").await;
    assert_eq!(client.control(Method::DELETE, "requests", Value::Null).await.0, 204);
    assert_eq!(client.recorded().await["requests"], json!([]));
}

#[tokio::test]
async fn invalid_control_request_is_rejected_with_its_problem() {
    let client = ControlClient::new().await;
    // (path, body, status, part of the problem)
    for (path, body, status, problem) in [
        ("jobs", json!({"id": "x", "steps": []}), 400, "steps"),
        ("jobs", json!({"id": "x", "stepz": []}), 400, "stepz"),
        ("faults", json!({"kind": "explode"}), 400, "kind"),
        ("faults", json!({"upstream": "mindbridge", "kind": "hold"}), 400, "upstream"),
        ("jobs/absent/state", json!({"status": "SUCCESS"}), 404, "absent"),
        ("nothing", json!({}), 404, "control endpoint"),
    ] {
        let (found, answer) = client.control(Method::POST, path, body).await;
        assert_eq!(found, status, "{path}");
        assert!(answer["problem"].as_str().unwrap().contains(problem), "{answer}");
    }
    for (path, body, problem) in [
        ("list", json!({"refuse": 200}), "list.refuse"),
        ("list", json!({"late": "5s"}), "late"),
        ("clock", json!({}), "skew"),
    ] {
        let (found, answer) = client.control(Method::PUT, path, body).await;
        assert_eq!(found, 400, "{path}");
        assert!(answer["problem"].as_str().unwrap().contains(problem), "{answer}");
    }
}

#[tokio::test]
async fn summary_names_urls_and_jobs() {
    let simulator = simulator().await;
    let summary = simulator.to_string();
    assert!(summary.contains(&simulator.mindbridge_url()) && summary.contains("\n  a\n"), "{summary}");
}

#[tokio::test]
async fn summary_and_debug_output_contain_no_secret() {
    let simulator = simulator().await;
    assert!(!format!("{simulator}{simulator:?}").contains("planted"));
}

#[tokio::test]
async fn address_in_use_error_names_the_address() {
    let simulator = simulator().await;
    let bound = simulator.addresses();
    let taken = Simulator::start(Scenario::default(), bound).await.unwrap_err();
    assert!(taken.to_string().contains(&bound.mindbridge.to_string()), "{taken}");
}

#[tokio::test]
async fn stop_closes_the_listeners() {
    // an address of this test alone, so that no other test takes its ports between the stop and the restart
    let alone = SocketAddr::from(([127, 83, 105, 109], 0));
    let simulator = simulator_at(Addresses { mindbridge: alone, supermetrics: alone }).await;
    let bound = simulator.addresses();
    simulator.stop().await;
    let again = Simulator::start(Scenario::default(), bound).await.unwrap();
    assert_eq!(again.addresses(), bound);
}
