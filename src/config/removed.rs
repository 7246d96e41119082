//! Options that were removed. A configuration that uses one is rejected with what takes its place, so that no option is
//! ignored after an upgrade.

use serde_json::Value;

use super::validation::ValidationErrors;

/// Each removed option with what takes its place. `*` is the name of a source, `[]` an entry of a list.
pub(super) const REMOVED: [(&str, &str); 24] = [
    ("server.body_timeout", "the time is half of server.request_timeout"),
    ("server.write_timeout", "the time is server.idle_timeout"),
    ("server.max_answer_bytes", "the limit is a sixteenth of server.answer_memory"),
    ("sources.*.max_rows_body", "the limit is cache.rows_max_bytes"),
    ("sources.*.budget.max_wait", "the time is two thirds of status_timeout"),
    (
        "credentials.warn_before",
        "the log warns 7d, 1d and 1h before the expiry; for another time, alert on jobgate_source_credential_expiry_timestamp_seconds",
    ),
    ("jwt[].leeway", "the time is 30s"),
    ("jwt[].refresh", "the keys are reloaded every 5m"),
    ("graphql.max_tokens", "the limit is 2000"),
    ("graphql.max_depth", "the limit is 12"),
    ("graphql.max_aliases", "the limit is 50; request many jobs with jobs(refs)"),
    ("graphql.max_root_fields", "the limit is 20; request many jobs with jobs(refs)"),
    ("graphql.max_directives", "the limit is 20"),
    ("limits.bad_credentials_per_minute", "the limit is 30"),
    ("streams.init_timeout", "the time is half of server.header_timeout"),
    ("streams.pong_timeout", "the time is streams.ping_interval plus 10s"),
    ("streams.heartbeat", "the time is three fifths of streams.ping_interval"),
    ("streams.max_operations", "the limit is 200; streams.max_operations_per_client limits a client"),
    ("streams.max_message", "the limit is a quarter of server.max_body, at least 16KiB"),
    ("cache.missing_for", "the time is 5s"),
    ("cache.rows_for", "the time is 10m"),
    ("store.redis.max_record", "the limit is 1MiB"),
    ("telemetry.otlp_protocol", "set the environment variable OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("telemetry.trace_key", "the key is derived from watch_tokens.secret"),
];

/// Deletes the removed options from the tree of a file, and adds an error for each.
pub(super) fn refuse(tree: &mut Value, faults: &mut ValidationErrors) {
    for (option, instead) in REMOVED {
        delete(tree, "", option, &mut |path| faults.add(path, message(instead)));
    }
}

/// The error of the removed option that an environment variable sets, or of which it sets a part. `option` is the
/// variable's name after its prefix.
pub(super) fn fault_of_variable(option: &str) -> Option<String> {
    let path = option.to_lowercase().replace("__", ".");
    let sets = |removed: &str| {
        let removed = removed.replace("[]", ".[]");
        let mut given = path.split('.');
        removed
            .split('.')
            .all(|step| given.next().is_some_and(|part| matches!(step, "*" | "[]") || step == part))
    };
    REMOVED.iter().find(|(removed, _)| sets(removed)).map(|(_, instead)| message(instead))
}

fn message(instead: &str) -> String {
    format!("was removed, so delete it: {instead}")
}

/// Deletes `option` wherever it is below `node`, and calls `found` with each of its paths.
fn delete(node: &mut Value, path: &str, option: &str, found: &mut impl FnMut(String)) {
    let Some(keys) = node.as_object_mut() else { return };
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let Some((step, below)) = option.split_once('.') else {
        if keys.shift_remove(option).is_some() {
            found(join(option));
        }
        return;
    };
    if step == "*" {
        keys.iter_mut().for_each(|(key, node)| delete(node, &join(key), below, found));
    } else if let Some(list) = step.strip_suffix("[]") {
        let entries = keys.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (index, node) in entries.enumerate() {
            delete(node, &format!("{}[{index}]", join(list)), below, found);
        }
    } else if let Some(node) = keys.get_mut(step) {
        delete(node, &join(step), below, found);
    }
}
