//! Options that had another name in an earlier version. A configuration that uses an old name is rejected with the new
//! one, so that no option is ignored after an upgrade.

use serde_json::{Map, Value};

use super::validation::ValidationErrors;

/// Each old name with the new one.
pub(super) const RENAMED: [(&str, &str); 9] = [
    ("follow.fastest", "poll.min_interval"),
    ("follow.slowest", "poll.max_interval"),
    ("follow.linger", "poll.unsubscribe_grace"),
    ("follow.missing_for", "poll.missing_for"),
    ("follow.unknown_for", "poll.unknown_for"),
    ("follow.at_most", "poll.max_duration"),
    ("cache.rerun_check", "cache.terminal_revalidate_interval"),
    ("credentials.reread", "credentials.reload_interval"),
    ("server.body_pace", "server.min_body_rate"),
];

/// The section that has another name, with the new one.
const SECTION: (&str, &str) = ("follow", "poll");

/// Removes the old names from the tree of a file, and adds an error for each.
pub(super) fn refuse(tree: &mut Value, faults: &mut ValidationErrors) {
    let Some(sections) = tree.as_object_mut() else { return };
    for (old, new) in RENAMED {
        let Some((section, key)) = old.split_once('.') else { continue };
        if sections.get_mut(section).and_then(Value::as_object_mut).is_some_and(|keys| remove(keys, key)) {
            faults.add(old, format!("is now {new}"));
        }
    }
    let (old, new) = SECTION;
    if remove(sections, old) {
        faults.add(old, format!("is now {new}"));
    }
}

/// The new name of the option that an environment variable sets by its old one, as the name of a variable after its
/// prefix. `option` is the variable's name after the prefix.
pub(super) fn new_variable(option: &str) -> Option<String> {
    let path = option.to_lowercase().replace("__", ".");
    let renamed = RENAMED.iter().find(|(old, _)| *old == path).map(|(_, new)| (*new).to_owned());
    let (old, new) = SECTION;
    let moved = || path.strip_prefix(old)?.strip_prefix('.').map(|key| format!("{new}.{key}"));
    renamed.or_else(moved).map(|path| path.to_uppercase().replace('.', "__"))
}

fn remove(keys: &mut Map<String, Value>, key: &str) -> bool {
    keys.shift_remove(key).is_some()
}
