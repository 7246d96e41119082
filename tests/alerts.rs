//! Alert rules and dashboard use existing metrics only; each alert has unit tests that fire it and that leave it quiet, run by
//! promtool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jobgate::telemetry::meters::{Instrument, InstrumentKind};
use serde_json::{Value, json};

use crate::support::scratch::Scratch;

/// Prefixes of metrics of other exporters: kube-state-metrics, and the kubelet.
const OTHERS: [&str; 3] = ["kube_", "kubelet_", "container_"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).current_dir(root()).output();
    assert!(output.is_ok(), "promtool cannot be started: install the package prometheus ({output:?})");
    let output = output.unwrap();
    let field = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?}:\n{}", String::from_utf8_lossy(&field));
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn rules() -> Vec<Value> {
    let groups = yaml("charts/jobgate/files/alerts.yaml");
    list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

/// Every name under which Prometheus stores a metric of jobgate.
fn ours() -> BTreeSet<String> {
    let each = Instrument::ALL.iter().flat_map(|one| {
        let endings: &[&str] = if matches!(one.kind(), InstrumentKind::Histogram(_)) {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        endings.iter().map(|ending| format!("{}{ending}", one.name()))
    });
    each.collect()
}

/// The metric names that an expression selects, and everything else with our prefix.
fn selected(expression: &str) -> Vec<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        rest = rest.split_at(start).1;
        let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let quoted = after.starts_with('"') || after.starts_with("-.");
        if after.starts_with('{')
            || (!quoted && (name.starts_with("jobgate_") || name.starts_with("process_")))
        {
            found.push(name);
        }
        rest = after;
    }
    found
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "charts/jobgate/files/alerts.yaml"]);
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    promtool(&["test", "rules", "tests/alerts/rules.test.yaml"]);
}

/// The alerts by their names.
fn alerts() -> Vec<(String, Value)> {
    let alerts = rules().into_iter().filter(|rule| rule["alert"].is_string());
    let alerts: Vec<_> = alerts.map(|alert| (alert["alert"].as_str().unwrap().to_owned(), alert)).collect();
    assert!(alerts.len() > 25, "the rules were read");
    alerts
}

#[test]
fn each_alert_has_its_own_name() {
    let mut names = BTreeSet::new();
    for (name, _) in alerts() {
        assert!(names.insert(name.clone()), "{name} exists twice");
    }
}

#[test]
fn each_alert_has_a_test_that_fires_it_and_one_that_does_not() {
    let tests = yaml("tests/alerts/rules.test.yaml");
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for test in list(&tests["tests"]) {
        let cases = list(&test["alert_rule_test"]);
        let fired = cases.iter().any(|one| !list(&one["exp_alerts"]).is_empty());
        let names = cases.iter().filter_map(|one| one["alertname"].as_str()).map(ToOwned::to_owned);
        if fired { fires.extend(names) } else { quiet.extend(names) }
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(fires, names, "each alert has a test that fires it");
    assert_eq!(quiet, names, "each alert has a test where it does not fire");
}

#[test]
fn each_alert_has_a_severity_and_a_description() {
    for (name, alert) in alerts() {
        assert!(
            matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning" | "info")),
            "{name}"
        );
        for field in ["summary", "description"] {
            assert!(
                alert["annotations"][field].as_str().is_some_and(|text| text.len() > 10),
                "{name} {field}"
            );
        }
    }
}

#[test]
fn each_alert_has_a_runbook() {
    let help = read("docs/operations.md");
    let alerts = alerts();
    for (name, alert) in &alerts {
        let place = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook"].as_str(), Some(place.as_str()), "{name}");
        assert!(help.contains(&format!("\n### {name}\n")), "docs/operations.md does not explain {name}");
    }
    let explained = help.lines().filter_map(|line| line.strip_prefix("### Jobgate"));
    assert_eq!(explained.count(), alerts.len(), "docs/operations.md explains only alerts");
}

/// The dashboard of the chart.
fn dashboard() -> Value {
    serde_json::from_str(&read("charts/jobgate/files/dashboard.json")).unwrap()
}

/// Every panel of the dashboard, those of its collapsed rows included.
fn panels_and_rows() -> Vec<Value> {
    let dashboard = dashboard();
    let each = list(&dashboard["panels"]).iter().flat_map(|panel| {
        let inside = list(&panel["panels"]).iter().cloned();
        std::iter::once(panel.clone()).chain(inside)
    });
    each.collect()
}

/// The panels of the dashboard that query something.
fn panels() -> Vec<Value> {
    panels_and_rows().into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// The queries of the dashboard.
fn dashboard_expressions() -> Vec<String> {
    let panels = panels();
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let expressions: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(expressions.len() > 25, "the dashboard was read");
    expressions
}

#[test]
fn each_dashboard_panel_has_its_own_id() {
    let mut ids = BTreeSet::new();
    for panel in panels_and_rows() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "the id of {} exists twice", panel["title"]);
    }
}

#[test]
fn each_dashboard_panel_queries_the_selected_data_source() {
    for panel in panels() {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(!list(&panel["targets"]).is_empty(), "{}", panel["title"]);
    }
}

#[test]
fn the_dashboard_begins_with_figures_and_thresholds_above_collapsed_rows() {
    let dashboard = dashboard();
    let (rows, top): (Vec<&Value>, Vec<&Value>) =
        list(&dashboard["panels"]).iter().partition(|panel| panel["type"] == "row");
    for panel in &top {
        assert_eq!(panel["type"], "stat", "{}", panel["title"]);
        let steps = list(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]);
        assert!(!steps.is_empty(), "{} has no threshold", panel["title"]);
    }
    let titles: BTreeSet<&str> = top.iter().filter_map(|panel| panel["title"].as_str()).collect();
    for title in ["Health of each source", "Throttled sources", "Late updates", "Open streams"] {
        assert!(titles.contains(title), "{title} is missing");
    }
    let lowest = top.iter().filter_map(|panel| panel["gridPos"]["y"].as_u64()).max().unwrap();
    for row in rows {
        assert_eq!(row["collapsed"], true, "{}", row["title"]);
        assert!(!list(&row["panels"]).is_empty(), "{} is empty", row["title"]);
        assert!(row["gridPos"]["y"].as_u64().unwrap() > lowest, "{} is above the figures", row["title"]);
    }
}

#[test]
fn every_health_in_a_query_is_one_of_the_schema() {
    let schema = read("schema/schema.graphql");
    let members = schema.split_once("enum SourceHealth {").unwrap().1.split_once("\n}").unwrap().0;
    let known: BTreeSet<String> = members.lines().map(|line| line.trim().to_lowercase()).collect();
    let in_rules = rules().into_iter().filter_map(|rule| rule["expr"].as_str().map(ToOwned::to_owned));
    let mut seen = 0;
    for expression in in_rules.chain(dashboard_expressions()) {
        // health="a", health=~"a|b", health!~"a|b"
        for after in expression.split("health").skip(1).filter(|after| after.starts_with(['=', '!'])) {
            for word in after.split('"').nth(1).unwrap().split('|') {
                assert!(known.contains(word), "{word} of {expression}");
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "the queries were read");
}

#[test]
fn every_query_of_the_dashboard_is_of_the_selected_cluster() {
    for expression in dashboard_expressions() {
        let selectors = expression.matches("namespace=\"$namespace\"").count();
        assert_eq!(expression.matches("{cluster=~\"$cluster\", ").count(), selectors, "{expression}");
        assert!(selectors > 0, "{expression}");
    }
}

#[test]
fn every_runbook_of_the_dashboard_exists() {
    let known: BTreeSet<String> = alerts()
        .into_iter()
        .map(|(name, _)| format!("${{docs}}/operations.md#{}", name.to_lowercase()))
        .collect();
    let panels = panels();
    let linked: BTreeSet<&str> = panels
        .iter()
        .flat_map(|panel| list(&panel["links"]))
        .filter_map(|link| link["url"].as_str())
        .collect();
    let unknown: Vec<&&str> = linked.iter().filter(|url| !known.contains(**url)).collect();
    assert_eq!(unknown, Vec::<&&str>::new());
    assert!(linked.len() > 20, "the links were read: {linked:?}");
}

#[test]
fn promtool_accepts_the_queries_of_the_dashboard() {
    let as_rules: Vec<Value> = dashboard_expressions()
        .iter()
        .enumerate()
        .map(|(place, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            json!({ "record": format!("dashboard:expression{place}"), "expr": expression })
        })
        .collect();
    let file = Scratch::new(&json!({ "groups": [{ "name": "dashboard", "rules": as_rules }] }).to_string());
    promtool(&["check", "rules", file.path()]);
}

#[test]
fn rules_and_dashboard_query_only_existing_metrics() {
    let rules = rules();
    let in_rules = rules.iter().filter_map(|rule| rule["expr"].as_str().map(ToOwned::to_owned));
    let expressions: Vec<String> = in_rules.chain(dashboard_expressions()).collect();
    let recorded: BTreeSet<String> =
        rules.iter().filter_map(|rule| rule["record"].as_str().map(ToOwned::to_owned)).collect();
    let ours = ours();
    let mut used = BTreeSet::new();
    for expression in &expressions {
        let names = selected(expression);
        assert!(!names.is_empty() || expression.contains("jobgate:"), "{expression}");
        for name in names {
            let known = ours.contains(name) || recorded.contains(name);
            assert!(known || OTHERS.iter().any(|other| name.starts_with(other)), "{name} of {expression}");
            used.insert(name.to_owned());
        }
    }
    assert!(used.len() > 40, "{used:?}");
}
