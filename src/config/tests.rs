//! The configuration from an operator's point of view: what is rejected, with which message, and what is accepted.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Config, CredentialRef, Environment, IntrospectionConfig, SecretRef, tree};
use crate::domain::principal::Scope;
use crate::domain::upstream::{Upstream, names_of};

mod egress;
mod faults;
mod removed;
mod renamed;

/// An issuer with its required options only.
const JWT: &str = "jwt: [{issuer: 'https://login.example', audience: jobgate, jwks: {url: 'https://login.example/.well-known/jwks.json'}, sources: [audit], login: {client_id: jobgate-page}}]";

const HASH: &str = "ab00000000000000000000000000000000000000000000000000000000000000";

/// A valid source and client, to which a case adds its sections.
fn with(rest: &str) -> String {
    format!(
        "{}\n{rest}",
        source("upstream: mindbridge, base_url: 'https://a.example/api/', credential: {bearer: {env: T}}")
    )
}

fn source(options: &str) -> String {
    format!("sources: {{ audit: {{ {options} }} }}")
}

fn read(yaml: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    Config::from_yaml(yaml, &env.iter().copied().collect()).map_err(|faults| faults.to_string())
}

#[test]
fn example_configuration_loads_with_the_expected_values() {
    let config = read(include_str!("../../config/example.yaml"), &[]).unwrap();
    let names: Vec<_> = config.sources.keys().map(super::SourceName::as_str).collect();
    assert_eq!(names, ["audit", "marketing"]);
    let [audit, marketing] = [0, 1].map(|index| config.sources.values().nth(index).unwrap());
    assert_eq!((audit.upstream, marketing.upstream), (Upstream::MindBridge, Upstream::Supermetrics));
    assert_eq!(audit.base_url.as_str(), "https://acme.example/api");
    assert_eq!(
        audit.credential.form,
        CredentialRef::Bearer(SecretRef::File("/run/secrets/audit-token".into()))
    );
    assert_eq!(marketing.credential.form, CredentialRef::ApiKey(SecretRef::Env("MARKETING_KEY".to_owned())));
    assert_eq!((audit.budget.per_hour, audit.max_status_body), (5_000, 1 << 20));
    let [client] = &config.clients[..] else { panic!("one client") };
    assert_eq!((client.name.as_str(), client.sources.len(), client.key_sha256[0][0]), ("dashboard", 2, 0x9f));
    assert_eq!(config.cache.keep_finished, Duration::from_hours(30 * 24));
    assert!(config.allows_introspection(), "auto, on loopback");
}

#[test]
fn effective_configuration_round_trips() {
    let config = read(include_str!("../../config/example.yaml"), &[]).unwrap();
    let printed = serde_json::to_string(&config.effective().unwrap()).unwrap();
    assert_eq!(read(&printed, &[]).unwrap(), config);
}

#[test]
fn client_sources_accept_a_list_or_a_mapping() {
    let whole = || Scope::default();
    let kinds = || Scope { kinds: ["A".to_owned(), "B".to_owned()].into(), ..Scope::default() };
    let both = || Scope { labels: [("team".to_owned(), "blue".to_owned())].into(), ..kinds() };
    let cases = [
        ("[audit]", whole(), r#"["audit"]"#),
        ("{audit: }", whole(), r#"["audit"]"#),
        ("{audit: {}}", whole(), r#"["audit"]"#),
        ("{audit: {kinds: [B, A, B]}}", kinds(), r#"{"audit":{"kinds":["A","B"]}}"#),
        (
            "{audit: {kinds: [A, B], labels: {team: blue}}}",
            both(),
            r#"{"audit":{"kinds":["A","B"],"labels":{"team":"blue"}}}"#,
        ),
    ];
    for (sources, scope, printed) in cases {
        let yaml = with(&format!("clients: [{{name: a, key_sha256: {HASH}, sources: {sources}}}]"));
        let config = read(&yaml, &[]).unwrap();
        assert_eq!(config.clients[0].sources.values().collect::<Vec<_>>(), [&scope], "{sources}");
        let effective = config.effective().unwrap();
        assert_eq!(effective["clients"][0]["sources"].to_string(), printed, "{sources}");
        assert_eq!(read(&effective.to_string(), &[]).unwrap(), config, "{sources}");
    }
}

#[test]
fn kinds_of_a_source_without_kinds_error_names_the_fix() {
    let sales =
        source("upstream: supermetrics, base_url: 'https://a.example', credential: {bearer: {env: T}}");
    let yaml =
        format!("{sales}\nclients: [{{name: a, key_sha256: {HASH}, sources: {{audit: {{kinds: [A]}}}}}}]");
    assert_eq!(
        read(&yaml, &[]).unwrap_err(),
        format!(
            "clients[0].sources.audit.kinds: is supported for {} only, because supermetrics jobs have no kind: use labels",
            names_of("and", |profile| profile.has_kinds)
        )
    );
}

#[test]
fn watch_token_secret_must_be_a_reference() {
    let yaml = with("watch_tokens: { secret: { env: JOBGATE_SIGNING } }");
    let config = read(&yaml, &[("JOBGATE_SIGNING", "s3cret")]).unwrap();
    assert_eq!(config.watch_tokens.secret, Some(SecretRef::Env("JOBGATE_SIGNING".to_owned())));
    for (secret, line) in [
        (
            "s3cret",
            "watch_tokens.secret: must be a reference, { file: /path } or { env: NAME }, never the secret itself",
        ),
        (
            "{ s3cret: x }",
            "watch_tokens.secret: has an unknown key (not shown, because it may be a secret): use file or env",
        ),
        (
            "{ env: s3cret }",
            "watch_tokens.secret.env: must be the name of an environment variable (A-Z, 0-9 and _), never the secret itself",
        ),
        ("{}", "watch_tokens.secret: is empty: set { file: /path } or { env: NAME }"),
    ] {
        let yaml = with(&format!("watch_tokens: {{ secret: {secret} }}"));
        assert_eq!(read(&yaml, &[]).unwrap_err(), line);
    }
}

#[test]
fn credential_expires_at_must_be_a_timestamp_with_a_zone() {
    let with = |end: &str| {
        source(&format!(
            "upstream: mindbridge, base_url: 'https://a.example', credential: {{bearer: {{env: T}}, expires_at: {end}}}"
        ))
    };
    for end in ["2027-01-31T00:00:00Z", "'2027-01-31T01:00:00+01:00'"] {
        let config = read(&with(end), &[]).unwrap();
        let expires_at = config.sources.values().next().unwrap().credential.expires_at;
        assert_eq!(expires_at.map(|end| end.to_string()).as_deref(), Some("2027-01-31T00:00:00Z"), "{end}");
        let printed = serde_json::to_string(&config.effective().unwrap()).unwrap();
        assert_eq!(read(&printed, &[]).unwrap(), config);
    }
    let line = "sources.audit.credential.expires_at: must be a date and time with its zone, such as 2027-01-31T00:00:00Z";
    for end in ["2027-01-31", "2027-01-31T00:00:00", "soon", "7", "null"] {
        assert_eq!(read(&with(end), &[]).map(drop), Err(line.to_owned()), "{end}");
    }
}

#[test]
fn environment_overrides_the_file_at_every_depth() {
    let yaml = format!(
        "{}\nserver: {{ request_timeout: 20s }}\nclients: [{{ name: a, key_sha256: {HASH}, sources: [eu-west] }}]",
        source("x").replace("audit: { x }", "eu-west: { upstream: mindbridge, base_url: https://a.example, credential: {bearer: {env: JOBGATE_TOKEN}} }")
    );
    let config = read(
        &yaml,
        &[
            ("JOBGATE_SERVER__LISTEN", "0.0.0.0:80"),
            ("JOBGATE_GRAPHQL__INTROSPECTION", "on"),
            ("JOBGATE_GRAPHQL__MAX_COST", "7"),
            ("JOBGATE_SOURCES__EU_WEST__BUDGET__PER_SECOND", "3"),
            ("JOBGATE_SOURCES__EU_WEST__CREDENTIAL__BEARER__ENV", "OTHER"),
            ("JOBGATE_CLIENTS__0__NAME", "\"7\""),
            ("JOBGATE_TELEMETRY__OTLP_ENDPOINT", "null"),
        ],
    )
    .unwrap();
    let source = config.sources.values().next().unwrap();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.server.request_timeout, Duration::from_secs(20));
    assert_eq!((config.graphql.introspection, config.graphql.max_cost), (IntrospectionConfig::On, 7));
    assert_eq!((source.budget.per_second, source.budget.concurrency), (3, 8));
    assert_eq!(source.credential.form.secret().to_string(), "environment variable OTHER");
    assert_eq!(config.clients[0].name, "7");
}

#[test]
fn variables_of_other_purposes_are_ignored() {
    let yaml = source(
        "upstream: mindbridge, base_url: https://a.example, credential: {bearer: {env: JOBGATE_TOKEN}}",
    );
    let variables = [
        ("JOBGATE_CONFIG", "elsewhere.yaml"),
        ("JOBGATE_URL", "http://elsewhere"),
        ("JOBGATE_KEY", "jg_elsewhere"),
        ("JOBGATE_SERVICE_HOST", "10.0.0.1"),
        ("JOBGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        // that with a source's secret may have any name
        ("JOBGATE_TOKEN", "s"),
    ];
    assert_eq!(read(&yaml, &variables).unwrap(), read(&yaml, &[]).unwrap());
}

#[test]
fn unreadable_file_error_names_the_path() {
    let path = std::path::Path::new("no/such/file.yaml");
    let faults = Config::load(Some(path), &Environment::default()).unwrap_err().to_string();
    assert!(faults.starts_with("no/such/file.yaml: cannot be read: "), "{faults}");
}

#[test]
fn an_empty_section_keeps_its_defaults() {
    assert_eq!(read(&with("server:\nclients:\n"), &[]).unwrap(), read(&with(""), &[]).unwrap());
}

#[test]
fn invalid_values_are_refused_without_being_repeated() {
    let whole = tree::parse(&sampled(), "sample", &mut super::ValidationErrors::default()).unwrap();
    let mut pointers = Vec::new();
    places(&whole, "", &mut pointers);
    let canary = "cAnaRy-31337";
    let odd = serde_json::json!([null, true, 5, -1, 1.5, 1e300, canary, [canary], [null, 7], {}, { "k": canary }, [{}]]);
    let mut refused = 0;
    for pointer in &pointers {
        for value in odd.as_array().unwrap() {
            let mut tree = whole.clone();
            *tree.pointer_mut(pointer).unwrap() = value.clone();
            if let Err(faults) = read(&tree.to_string(), &[]) {
                assert!(!faults.contains(canary), "{value} at {pointer}: {faults}");
                refused += 1;
            }
        }
    }
    assert!(refused > pointers.len() * 8, "{refused} rejections for {} options", pointers.len());
}

/// JSON pointers to all nodes of a tree but its root.
fn places(value: &Value, pointer: &str, into: &mut Vec<String>) {
    let named = value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value));
    let numbered = value.as_array().into_iter().flatten().enumerate();
    for (step, value) in named.chain(numbered.map(|(index, value)| (index.to_string(), value))) {
        let pointer = format!("{pointer}/{step}");
        places(value, &pointer, into);
        into.push(pointer);
    }
}

/// The default file with its samples of a source and a client enabled.
fn sampled() -> String {
    let mut text = include_str!("../../config/default.yaml")
        .replace("sources: {}\n", "")
        .replace("clients: []\n", "")
        .replace("jwt: []\n", "");
    for sample in ["# sources:\n", "# clients:\n", "# jwt:\n"] {
        let start = text.find(sample).expect("a sample");
        let (before, sample) = text.split_at(start);
        let end = sample.find("\n\n").expect("the end of a sample");
        let (sample, after) = sample.split_at(end);
        let on: Vec<&str> = sample.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
        text = format!("{before}{}{after}", on.join("\n"));
    }
    text
}

#[test]
fn default_file_lists_exactly_the_options_of_the_schema() {
    let text = sampled();
    let tree = tree::parse(&text, "sample", &mut super::ValidationErrors::default()).unwrap();
    let mut written = BTreeSet::new();
    keys(&tree, "", &mut written);
    let mut described = BTreeSet::new();
    options(&Config::json_schema(), "", &mut described);
    // A reference is one of two: the sample contains bearer by file, and mentions the others.
    for other in [
        "sources.*.credential.bearer.env",
        "sources.*.credential.api_key",
        "sources.*.credential.api_key.file",
        "sources.*.credential.api_key.env",
        // and it has no default
        "sources.*.credential.expires_at",
        "sources.*.proxy_credential.file",
        "sources.*.proxy_credential.env",
        // the options below one that is off by default
        "server.tls.cert",
        "server.tls.key",
        "graphql.trusted_documents.manifest",
        "graphql.trusted_documents.only",
    ] {
        assert!(described.remove(other), "{other}");
    }
    // Those of the store are null unless replicas share it.
    for other in [
        "url.file",
        "url.env",
        "record_secret.file",
        "record_secret.env",
        "password.file",
        "password.env",
        "sentinel_password.file",
        "sentinel_password.env",
    ] {
        assert!(described.remove(&format!("store.redis.{other}")), "{other}");
    }
    for other in ["file", "env"] {
        assert!(described.remove(&format!("watch_tokens.secret.{other}")), "{other}");
        assert!(described.remove(&format!("telemetry.otlp_headers.{other}")), "{other}");
    }
    assert!(described.remove("jwt[].jwks.file"), "the sample shows url");
    assert_eq!(written, described);
}

#[test]
fn default_file_shows_the_defaults_of_a_source() {
    let bare = read(
        &format!(
            "{}\nclients: [{{name: dashboard, key_sha256: '{}', sources: [audit]}}]\n{JWT}",
            source("upstream: mindbridge, base_url: 'https://acme.example/api', credential: {bearer: {file: /run/secrets/audit-token}}"),
            "0".repeat(64)
        ),
        &[],
    )
    .unwrap();
    assert_eq!(read(&sampled(), &[]).unwrap(), bare);
}

#[test]
fn empty_configuration_error_names_the_fix() {
    assert_eq!(
        read("", &[]).unwrap_err(),
        "sources: is empty: configure at least one source, or run `jobgate demo`"
    );
}

#[test]
fn schema_describes_every_option() {
    let schema = Config::json_schema();
    let mut described = BTreeSet::new();
    options(&schema, "", &mut described);
    assert!(!schema.to_string().contains("$ref") && described.len() > 45, "{}", described.len());
    sections(&schema, "", &|section, path| {
        for (key, value) in section["properties"].as_object().into_iter().flatten() {
            assert!(
                value["description"].as_str().is_some_and(|text| text.len() > 10),
                "{path}.{key} has no description"
            );
        }
    });
}

#[test]
fn schema_rejects_unknown_options() {
    sections(&Config::json_schema(), "", &|section, path| {
        assert_eq!(section["additionalProperties"], false, "{path} accepts unknown keys");
    });
}

#[test]
fn schema_has_defaults_and_required_options() {
    let schema = Config::json_schema();
    assert_eq!(schema["properties"]["server"]["properties"]["listen"]["default"], "127.0.0.1:8080");
    let source = &schema["properties"]["sources"]["additionalProperties"];
    assert_eq!(source["required"], serde_json::json!(["upstream", "base_url", "credential"]));
    let upstreams: Vec<&str> = Upstream::ALL.iter().map(|upstream| upstream.profile().name).collect();
    assert_eq!(source["properties"]["upstream"]["enum"], serde_json::json!(upstreams));
    assert_eq!(source["properties"]["status_timeout"]["default"], "15s");
    assert_eq!(source["properties"]["budget"]["properties"]["concurrency"]["default"], 8);
    assert!(source["properties"]["base_url"].get("default").is_none(), "a required option has no default");
}

const MANUAL: &str = include_str!("../../docs/configuration.md");

#[test]
fn manual_documents_every_option() {
    let mut described = BTreeSet::new();
    options(&Config::json_schema(), "", &mut described);
    let missing: Vec<_> = described.iter().filter(|path| !MANUAL.contains(&format!("`{path}`"))).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
}

#[test]
fn manual_documents_every_default() {
    let defaults = super::defaults();
    for (section, options) in defaults.as_object().into_iter().flatten() {
        for (option, default) in options.as_object().into_iter().flatten() {
            assert_rows(MANUAL, &format!("{section}.{option}"), default);
        }
    }
}

#[test]
fn example_of_the_manual_loads() {
    let example =
        MANUAL.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    read(example, &[]).expect("the manual's example loads");
}

/// Fails unless the manual has a row for an option, or for each of those below it.
fn assert_rows(manual: &str, path: &str, default: &Value) {
    if let Some(options) = default.as_object() {
        for (option, default) in options {
            assert_rows(manual, &format!("{path}.{option}"), default);
        }
        return;
    }
    let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
    let row = format!("| `{path}` | `{default}` |");
    assert!(manual.contains(&row), "no row {row}");
}

/// Every path of a tree, with `*` for the name of a source and `[]` for an entry of a list of clients.
fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let key = if path == "sources" { "*" } else { key };
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        keys(value, &path, into);
        for entry in value.as_array().into_iter().flatten().filter(|entry| entry.is_object()) {
            keys(entry, &format!("{path}[]"), into);
        }
        into.insert(path);
    }
    into.remove("sources.*");
}

/// The same of a schema.
fn options(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    let branches = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    for branch in branches.chain([schema]) {
        for (key, value) in branch.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            options(value, &path, into);
            if let Some(items) = value.get("items") {
                options(items, &format!("{path}[]"), into);
            }
            if let Some(named) = value.get("additionalProperties").filter(|named| named.is_object()) {
                options(named, &format!("{path}.*"), into);
            }
            into.insert(path);
        }
    }
}

/// Checks each part of the schema that has options.
fn sections(schema: &Value, path: &str, check: &dyn Fn(&Value, &str)) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        check(schema, path);
        properties.iter().for_each(|(key, value)| sections(value, &format!("{path}.{key}"), check));
    }
    for inner in ["items", "additionalProperties"] {
        schema.get(inner).into_iter().for_each(|inner| sections(inner, &format!("{path}.*"), check));
    }
}
