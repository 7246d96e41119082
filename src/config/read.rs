//! From a tree of values to typed options. An invalid value is reported and reset to its default, and the tree is read
//! again, so that all validation errors are reported together. Messages contain the accepted values, not the value
//! found.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::validation::ValidationErrors;

/// Options below which a key may be a misplaced secret.
const SECRETS: [&str; 6] =
    ["credential", "proxy_credential", "url", "password", "record_secret", "sentinel_password"];

/// Reads a tree. `None` only if an invalid value cannot be reset; then there is an error.
pub(super) fn read<T: DeserializeOwned>(
    mut tree: Value,
    defaults: &Value,
    faults: &mut ValidationErrors,
) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let path = error.path().clone();
        note(&path, &error.into_inner().to_string(), faults);
        if !put_right(&mut tree, defaults, &path) {
            return None;
        }
    }
}

fn note(path: &Path, message: &str, faults: &mut ValidationErrors) {
    let wanted = message.rsplit_once(", expected ").map(|(_, wanted)| wanted);
    let path_text = path.to_string();
    let below_credential = path_text.starts_with("watch_tokens.secret")
        || path.iter().any(|step| matches!(step, Segment::Map { key } if SECRETS.contains(&key.as_str())));
    // A key there may be a secret whose colon is missing.
    if below_credential && message.starts_with("unknown field") {
        let parent = path_text.rsplit_once('.').map_or("", |(parent, _)| parent);
        let known = wanted.map(known_words).unwrap_or_default().join(" or ");
        faults
            .add(parent, format!("has an unknown key (not shown, because it may be a secret): use {known}"));
        return;
    }
    let text = match wanted {
        Some(wanted) if message.starts_with("unknown field") => {
            let known = known_words(wanted);
            let key = path.iter().next_back().map(ToString::to_string).unwrap_or_default();
            match nearest(&key, known.iter().copied()) {
                Some(nearest) => format!("is not an option; did you mean {nearest}?"),
                None => format!("is not an option; known options: {}", known.join(", ")),
            }
        }
        Some(wanted) if message.starts_with("invalid") => format!("must be {}", plain(wanted)),
        _ if message.starts_with("missing field") => {
            format!("requires {}: add it", known_words(message).join(" and "))
        }
        _ if message.starts_with("must be ") || message.starts_with("this version ") => message.to_owned(),
        _ => "cannot be read".to_owned(),
    };
    faults.add(path_text, text);
}

/// YAML terms for the shapes that serde names.
fn plain(wanted: &str) -> &str {
    match wanted {
        "a string" | "path string" => "text; put it in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping, one `name:` per line",
        other if other.starts_with("struct ") => "a mapping of options, one `option: value` per line",
        other => other,
    }
}

fn known_words(wanted: &str) -> Vec<&str> {
    wanted.split('`').skip(1).step_by(2).collect()
}

/// Resets the value at `path` to its default, or removes it if it has none. Returns whether that changed the tree.
fn put_right(tree: &mut Value, defaults: &Value, path: &Path) -> bool {
    let steps: Vec<&Segment> = path.iter().collect();
    let Some((last, above)) = steps.split_last() else {
        return false;
    };
    let mut parent = tree;
    let mut default = Some(defaults);
    for step in above {
        let Some(child) = child_mut(parent, step) else {
            return false;
        };
        (parent, default) = (child, default.and_then(|value| child_of(value, step)));
    }
    let default = default.and_then(|value| child_of(value, last));
    match (parent, last) {
        (Value::Object(map), Segment::Map { key }) => match default {
            Some(default) if map.get(key) != Some(default) => {
                map.insert(key.clone(), default.clone()).is_some()
            }
            Some(_) => false,
            None => map.shift_remove(key).is_some(),
        },
        // Removing an entry would shift the numbers of the entries after it, which later errors contain.
        (Value::Array(list), Segment::Seq { index }) => {
            let inert = if above.len() == 1 { Value::Object(serde_json::Map::new()) } else { "".into() };
            match list.get_mut(*index) {
                Some(entry) if *entry != inert => {
                    *entry = inert;
                    true
                }
                _ => false,
            }
        }
        _ => false,
    }
}

fn child_mut<'a>(value: &'a mut Value, step: &Segment) -> Option<&'a mut Value> {
    match step {
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn child_of<'a>(value: &'a Value, step: &Segment) -> Option<&'a Value> {
    match step {
        Segment::Seq { index } => value.get(*index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// The known word that is at most two letters away from `word`, or a third of it.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 2);
    let measured = known.map(|candidate| (distance(word, candidate), candidate));
    measured.filter(|(away, _)| *away <= limit).min().map(|(_, candidate)| candidate)
}

/// How many letters to change, add or remove to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(100).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
