//! The REST API over real sockets, checked against `schema/openapi.yaml`.

use std::collections::BTreeSet;

use jobgate_simulator::{MindBridgeJob, MindBridgeStep, SimUpstream, SupermetricsJob};
use serde_json::Value;

use crate::support::server::{Rig, Setup};
use crate::support::wire::{self, Reply};

async fn rig() -> Rig {
    let mind = vec![
        MindBridgeJob::new("done", &[(0, "COMPLETE")]),
        MindBridgeJob::new("runs", &[(0, "IN_PROGRESS")]),
    ];
    // so that the longest wait of `Prefer: wait` takes many polls
    let rest = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 5m }\n\
                poll: { min_interval: 100ms }";
    let setup = Setup::with(mind, vec![SupermetricsJob::new("done", &[(0, "SUCCESS")])]);
    Setup { rest: rest.to_owned(), ..setup }.start().await
}

async fn get(rig: &Rig, path: &str, headers: &[(&str, &str)]) -> Reply {
    wire::exchange(rig.public, &wire::request("GET", path, headers, "")).await
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let lines = reply.head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

pub(crate) fn openapi() -> Value {
    serde_saphyr::from_str(include_str!("../schema/openapi.yaml")).unwrap()
}

/// The schema of a name, with its references resolved.
pub(crate) fn schema<'a>(document: &'a Value, name: &str) -> &'a Value {
    &document["components"]["schemas"][name]
}

/// Every member of an answer is described, and every described member exists.
pub(crate) fn assert_described(schema: &Value, answer: &Value, at: &str) {
    if let Some(members) = answer.as_object() {
        let known: BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let found: BTreeSet<&str> = members.keys().map(String::as_str).collect();
        assert_eq!(found, known, "{at}");
        let required: BTreeSet<&str> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(required, known, "{at}: a member that always exists is required");
        for (name, value) in members {
            assert_described(&schema["properties"][name], value, &format!("{at}.{name}"));
        }
    } else if let Some(items) = answer.as_array().filter(|_| schema["items"]["properties"].is_object()) {
        for item in items {
            assert_described(&schema["items"], item, &format!("{at}[]"));
        }
    }
}

#[tokio::test]
async fn a_rest_job_conforms_to_the_openapi_document() {
    let document = openapi();
    let rig = rig().await;
    for (source, upstream) in [("mind", "mindbridge"), ("metrics", "supermetrics")] {
        let reply = get(&rig, &format!("/v1/jobs/{source}/done"), &[]).await;
        assert_eq!(reply.status, 200);
        let job = reply.json();
        assert_eq!((job["state"].as_str(), job["isTerminal"].as_bool()), (Some("SUCCEEDED"), Some(true)));
        assert!(job[upstream].is_object(), "{job}");
        assert_described(schema(&document, "Job"), &job, "Job");
    }
}

#[tokio::test]
async fn a_rest_list_conforms_to_the_openapi_document() {
    let document = openapi();
    let rig = rig().await;
    for path in ["/v1/jobs/mind/done", "/v1/jobs/metrics/done", "/v1/jobs/mind/runs"] {
        assert_eq!(get(&rig, path, &[]).await.status, 200);
    }
    let reply = get(&rig, "/v1/jobs?count=true&orderBy=STATE&direction=ASC&first=2", &[]).await;
    let page = reply.json();
    let members = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let list = schema(&document, "JobList");
    assert_eq!((reply.status, members(&page)), (200, members(&list["properties"])));
    for listed in page["jobs"].as_array().unwrap() {
        assert_eq!(members(listed), members(&list["properties"]["jobs"]["items"]["properties"]));
        assert_described(schema(&document, "Job"), &listed["job"], "Job");
        assert_eq!(listed["origin"], "REQUESTED");
    }
    let ids = |page: &Value| {
        let jobs = page["jobs"].as_array().unwrap().iter().map(|listed| &listed["job"]);
        jobs.map(|job| format!("{}/{}", job["source"].as_str().unwrap(), job["externalId"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (ids(&page), &page["totalCount"]),
        (vec!["mind/runs".into(), "metrics/done".into()], &3.into())
    );

    let link = header(&reply, "link").unwrap();
    let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
    assert!(next.contains(&format!("after={}", page["nextCursor"].as_str().unwrap())), "{next}");
    let last = get(&rig, next, &[]).await;
    assert_eq!((ids(&last.json()), header(&last, "link")), (vec!["mind/done".into()], None));
    assert_eq!(last.json()["nextCursor"], Value::Null);
}

#[tokio::test]
async fn a_rest_list_names_the_invalid_parameter() {
    let document = openapi();
    let rig = rig().await;
    let documented = document["paths"]["/v1/jobs"]["get"]["parameters"].as_array().unwrap();
    for (query, expected) in
        [("state=done", "state"), ("after=nonsense", "after"), ("limit=3", "a parameter")]
    {
        let reply = get(&rig, &format!("/v1/jobs?{query}"), &[]).await;
        let problem = reply.json();
        assert_eq!(reply.status, 422, "{query}");
        assert!(problem["detail"].as_str().unwrap().starts_with(expected), "{problem}");
        assert_described(schema(&document, "Problem"), &problem, "Problem");
    }
    let unknown = get(&rig, "/v1/jobs?limit=3", &[]).await.json();
    for name in documented.iter().map(|parameter| parameter["name"].as_str().unwrap()) {
        assert!(unknown["detail"].as_str().unwrap().contains(name), "{name} is missing in {unknown}");
    }
}

#[tokio::test]
async fn a_rest_problem_conforms_to_the_openapi_document() {
    let document = openapi();
    let rig = rig().await;
    let missing = get(&rig, "/v1/jobs/mind/missing", &[]).await;
    assert_eq!((missing.status, header(&missing, "content-type")), (404, Some("application/problem+json")));
    assert_described(schema(&document, "Problem"), &missing.json(), "Problem");
}

#[tokio::test]
async fn only_an_unfinished_job_is_sent_with_retry_after() {
    let rig = rig().await;
    let running = get(&rig, "/v1/jobs/mind/runs", &[]).await;
    assert!(header(&running, "retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    for path in ["/v1/jobs/mind/done", "/v1/jobs/metrics/done"] {
        assert_eq!(header(&get(&rig, path, &[]).await, "retry-after"), None, "{path}");
    }
}

#[tokio::test]
async fn if_none_match_with_the_current_etag_returns_304() {
    let rig = rig().await;
    let first = get(&rig, "/v1/jobs/mind/runs", &[]).await;
    let tag = header(&first, "etag").unwrap().to_owned();
    let again = get(&rig, "/v1/jobs/mind/runs", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let strong = tag.trim_start_matches("W/");
    let list = format!("\"x,y\", {strong}");
    for known in [strong, &list, "*"] {
        assert_eq!(get(&rig, "/v1/jobs/mind/runs", &[("if-none-match", known)]).await.status, 304, "{known}");
    }
    let other = get(&rig, "/v1/jobs/mind/done", &[("if-none-match", &tag)]).await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn prefer_wait_returns_the_terminal_state() {
    let rig = rig().await;
    let upstreams = rig.upstreams.clone();
    let waiting = async {
        let reply = get(&rig, "/v1/jobs/mind/runs", &[("prefer", "wait=25")]).await;
        (
            reply.status,
            header(&reply, "preference-applied").map(ToOwned::to_owned),
            reply.json()["state"].clone(),
        )
    };
    let ending = async {
        upstreams.wait_for_requests(1).await;
        upstreams.set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, ending);
    assert_eq!(answer, (200, Some("wait=25".to_owned()), "SUCCEEDED".into()));
}

#[tokio::test]
async fn a_zero_wait_returns_the_current_state() {
    let rig = rig().await;
    let reply = get(&rig, "/v1/jobs/mind/runs", &[("prefer", "wait=0")]).await;
    assert_eq!((reply.status, header(&reply, "preference-applied")), (200, Some("wait=0")));
    assert_eq!(reply.json()["state"], "RUNNING");
    let query = r#"{ jobAwait(ref: { external: { source: "mind", externalId: "runs" } }, timeout: "0ms") { ... on Job { state } } }"#;
    let answer = wire::post(rig.public, None, &serde_json::json!({ "query": query })).await;
    assert_eq!(answer.data()["jobAwait"]["state"], "RUNNING");
}

#[tokio::test]
async fn the_openapi_id_pattern_matches_the_accepted_ids() {
    let document = openapi();
    let parameters =
        document["paths"]["/v1/jobs/{source}/{externalId}"]["get"]["parameters"].as_array().unwrap();
    let schema = &parameters.iter().find(|one| one["name"] == "externalId").unwrap()["schema"];
    let pattern = regex::Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
    let most = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
    let rig = rig().await;
    let long = "a".repeat(200);
    let longer = "a".repeat(201);
    for id in
        ["a", "A-_.~:9", "...a", "a..", ".", "...", "a b", "a/b", "a%", "é", "a;b", "a@b", &long, &longer]
    {
        let encoded: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = format!("/v1/jobs/mind/{}", encoded.replace('+', "%20"));
        let described = pattern.is_match(id) && id.len() <= most;
        assert_eq!(get(&rig, &path, &[]).await.status != 422, described, "{id}");
    }
}

#[tokio::test]
async fn invalid_rest_requests_are_rejected_without_a_call() {
    let rig = rig().await;
    let cases = [
        ("GET", "/v1/jobs/mind/..%2f..", 422, "INVALID_REF"),
        ("GET", "/v1/jobs/mind/%00", 422, "INVALID_REF"),
        ("GET", "/v1/jobs/mind/%ff", 400, "BAD_REQUEST"),
        ("GET", "/v1/jobs/Mind/a", 422, "INVALID_REF"),
        ("GET", "/v1/jobs/nowhere/a", 404, "NOT_FOUND"),
        ("GET", "/v1/jobs/mind", 404, "NO_SUCH_PATH"),
        ("GET", "/v1/jobs/mind/", 404, "NO_SUCH_PATH"),
        ("GET", "/v1/other", 404, "NO_SUCH_PATH"),
        ("POST", "/v1/jobs/mind/a", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/jobs/mind/a", 405, "METHOD_NOT_ALLOWED"),
    ];
    for (method, path, status, code) in cases {
        let reply = wire::exchange(rig.public, &wire::request(method, path, &[], "")).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{method} {path}");
    }
    assert_eq!(rig.calls(SimUpstream::MindBridge), 0);
}
