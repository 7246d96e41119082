//! The untyped side: YAML text, the merge of file over defaults, and the environment's overrides.

use jobgate_client::{KEY_VARIABLE, URL_VARIABLE};
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy::{Error as Refuse, FirstWins};
use serde_saphyr::{DuplicateKeyPolicy, Error};

use super::environment::{Environment, FILE_VARIABLE};
use super::validation::ValidationErrors;
use super::{removed, renamed};

/// The prefix of every variable that sets an option.
const PREFIX: &str = "JOBGATE_";
/// Variables of the command line; they are not options.
const COMMAND_LINE: [&str; 3] = [FILE_VARIABLE, URL_VARIABLE, KEY_VARIABLE];

/// Reads YAML whose root is a mapping, or empty. Errors contain `label` and the line, and no part of the text. `None`
/// if the text cannot be read.
pub(super) fn parse(text: &str, label: &str, faults: &mut ValidationErrors) -> Option<Value> {
    let read = parse_with(text, Refuse).or_else(|error| {
        note(&error, label, faults);
        // The rest is checked in spite of a repeated key.
        if is_repeated_key(&error) { parse_with(text, FirstWins) } else { Err(error) }
    });
    match read {
        Ok(tree @ (Value::Object(_) | Value::Null)) => Some(tree),
        Ok(_) => {
            faults.add(label, "must be a mapping of sections, such as `server:`");
            None
        }
        Err(error) => {
            note(&error, label, faults);
            None
        }
    }
}

fn parse_with(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Value, Error> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { duplicate_keys: duplicate_keys, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
}

fn is_repeated_key(error: &Error) -> bool {
    matches!(error.without_snippet(), Error::DuplicateMappingKey { .. })
}

fn note(error: &Error, label: &str, faults: &mut ValidationErrors) {
    let place = error.location().map_or_else(|| label.to_owned(), |at| format!("{label} line {}", at.line()));
    let message = if is_repeated_key(error) {
        "repeats a key of the same mapping: keep one"
    } else {
        "is not valid YAML here: check the indentation, the colons and the quotes"
    };
    faults.add(place, message);
}

/// Merges `over` into `base`: mappings are merged, other values are replaced. An empty section changes nothing.
pub(super) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(held) => merge(held, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Value::Object(_) | Value::Array(_), Value::Null) => {}
        (base, over) => *base = over,
    }
}

/// Applies the variables `JOBGATE_<SECTION>__<KEY>` to the tree.
pub(super) fn override_from(env: &Environment, tree: &mut Value, faults: &mut ValidationErrors) {
    let secrets = secret_variables(tree);
    for name in env.names(PREFIX).filter(|name| !COMMAND_LINE.contains(name)) {
        let Some(option) = name.strip_prefix(PREFIX) else { continue };
        let origin = format!("environment variable {name}");
        if !option.contains("__") {
            if !is_of_kubernetes(option) && !secrets.iter().any(|secret| secret == name) {
                faults.add(
                    origin,
                    "is not an option: options are JOBGATE_<SECTION>__<KEY>, such as JOBGATE_SERVER__LISTEN",
                );
            }
            continue;
        }
        if let Some(new) = renamed::new_variable(option) {
            faults.add(origin, format!("is now {PREFIX}{new}"));
            continue;
        }
        if let Some(fault) = removed::fault_of_variable(option) {
            faults.add(origin, fault);
            continue;
        }
        match env.get(name) {
            Ok(text) => match place(tree, option) {
                Ok((path, node)) => {
                    *node = scalar(text);
                    faults.set_by(path, origin);
                }
                Err(message) => faults.add(origin, message),
            },
            Err(reason) => faults.add(origin, reason.to_string()),
        }
    }
}

/// Kubernetes sets these for every service; those of a service named jobgate are not options.
fn is_of_kubernetes(option: &str) -> bool {
    ["SERVICE_HOST", "SERVICE_PORT"].iter().any(|part| option.contains(part))
        || option == "PORT"
        || option.ends_with("_PORT")
        || option.starts_with("PORT_")
        || option.contains("_PORT_")
}

/// The variables that sources and watch tokens reference as secrets.
fn secret_variables(tree: &Value) -> Vec<String> {
    let sources = tree.get("sources").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let credentials = sources.filter_map(|source| source.get("credential")?.as_object());
    let signing = tree.get("watch_tokens").and_then(|section| section.get("secret"));
    let secrets = credentials.flat_map(Map::values).chain(signing);
    let names = secrets.filter_map(|secret| secret.get("env")?.as_str());
    names.map(str::to_owned).collect()
}

/// The node of an override. It is created if missing; the deserialization reports an unknown option.
fn place<'a>(tree: &'a mut Value, option: &str) -> Result<(String, &'a mut Value), &'static str> {
    let mut node = tree;
    let mut path = String::new();
    for part in option.split("__") {
        let wanted = part.to_lowercase();
        if wanted.is_empty() {
            return Err("has an empty part: options are JOBGATE_<SECTION>__<KEY>");
        }
        // A source may be present without content: `audit:`.
        if node.is_null() {
            *node = Value::Object(Map::new());
        }
        node = match node {
            Value::Object(map) => {
                let held = map.keys().find(|key| key.to_lowercase().replace('-', "_") == wanted);
                let key = held.cloned().unwrap_or(wanted);
                let dot = if path.is_empty() { "" } else { "." };
                path = format!("{path}{dot}{key}");
                map.entry(key).or_insert(Value::Null)
            }
            Value::Array(list) => {
                let index = wanted.parse().ok().filter(|index: &usize| *index < list.len());
                let index = index.ok_or("refers to a list entry that the file does not have")?;
                path = format!("{path}[{index}]");
                list.get_mut(index).ok_or("refers to a list entry that the file does not have")?
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err("goes below an option that is not a mapping: remove the last part");
            }
        };
    }
    Ok((path, node))
}

/// Reads a variable as a YAML scalar, or else as text.
fn scalar(text: &str) -> Value {
    let read = parse_with(text, Refuse).ok();
    read.filter(|value| !value.is_object() && !value.is_array() && !text.trim().is_empty())
        .unwrap_or_else(|| text.into())
}
