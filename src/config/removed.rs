//! Options that were removed. A configuration that uses one is rejected with what takes its place, so that no option is
//! ignored after an upgrade.

use serde_json::Value;

use super::validation::ValidationErrors;

/// Each removed option with what takes its place. `*` is the name of a source, `[]` an entry of a list.
pub(super) const REMOVED: [(&str, &str); 5] = [
    ("graphql.max_tokens", "the limit is 2000"),
    ("graphql.max_depth", "the limit is 12"),
    ("graphql.max_aliases", "the limit is 50; request many jobs with jobs(refs)"),
    ("graphql.max_root_fields", "the limit is 20; request many jobs with jobs(refs)"),
    ("graphql.max_directives", "the limit is 20"),
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
