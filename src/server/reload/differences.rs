//! The options that are applied without a restart, and the differences between two configurations.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::Config;

/// Copies the options that are applied without a restart. The only list of them; `docs/hot-reload.md` has it for
/// operators.
pub(super) fn take_over(running: &mut Config, next: &Config) {
    running.sources.clone_from(&next.sources);
    running.credentials.clone_from(&next.credentials);
    running.clients.clone_from(&next.clients);
    running.jwt.clone_from(&next.jwt);
    running.limits.clone_from(&next.limits);
    running.streams.clone_from(&next.streams);
    running.poll.clone_from(&next.poll);
    running.cache.fresh_for = next.cache.fresh_for;
    running.cache.terminal_revalidate_interval = next.cache.terminal_revalidate_interval;
    running.server.allowed_origins.clone_from(&next.server.allowed_origins);
    running.server.trusted_proxies.clone_from(&next.server.trusted_proxies);
    running.telemetry.log_level.clone_from(&next.telemetry.log_level);
}

/// The paths of the options in which two configurations differ. A list counts as one option.
pub(super) fn between(one: &Config, other: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let tree = |config: &Config| config.effective().unwrap_or_default();
    compare("", &tree(one), &tree(other), &mut found);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (one, other) if one == other => {}
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&below, &value(one), &value(other), found);
            }
        }
        (_, _) => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn config(text: &str) -> Config {
        let source =
            "{ upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: T } } }";
        Config::from_yaml(&text.replace("SOURCE", source), &Environment::default()).unwrap()
    }

    #[test]
    fn changed_options_are_listed_until_applied() {
        let before = config("sources: { a: SOURCE }");
        let next = config(
            "sources: { a: SOURCE, b: SOURCE }\nserver: { allowed_origins: ['https://c.example'], max_body: 1MiB }\n\
             cache: { fresh_for: 1s, max_bytes: 1GiB }\nlimits: { burst: 7000 }\ntelemetry: { log_format: json }",
        );
        let names = [
            "cache.fresh_for",
            "cache.max_bytes",
            "limits.burst",
            "server.allowed_origins",
            "server.max_body",
        ];
        assert_eq!(
            between(&before, &next),
            [names.as_slice(), &["sources.b", "telemetry.log_format"]].concat()
        );
        let mut running = before;
        take_over(&mut running, &next);
        assert_eq!(between(&running, &next), ["cache.max_bytes", "server.max_body", "telemetry.log_format"]);
        assert!(between(&next, &next).is_empty());
    }
}
