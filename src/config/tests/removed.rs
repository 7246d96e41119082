//! Options that were removed: each is rejected with what takes its place, in a file and in the environment.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::removed::REMOVED;
use super::super::renamed::RENAMED;
use super::super::{Config, ValidationErrors, tree};
use super::{JWT, options, read, with};

/// A valid configuration with a value for one option of its source, its issuer or a section, and the option's path.
fn with_option(option: &str, value: &Value) -> (String, String) {
    let mut whole = tree::parse(&with(JWT), "sample", &mut ValidationErrors::default()).unwrap();
    let mut node = &mut whole;
    for step in option.split('.') {
        node = match step.strip_suffix("[]") {
            Some(list) => &mut node[list][0],
            None => &mut node[step.replace('*', "audit")],
        };
    }
    *node = value.clone();
    (whole.to_string(), option.replace('*', "audit").replace("[]", "[0]"))
}

#[test]
fn a_removed_option_is_refused_with_what_replaces_it() {
    for (option, instead) in REMOVED {
        let message = format!("was removed, so delete it: {instead}");
        for value in [json!("1s"), json!(7), json!(null), json!([1]), json!({ "file": "/a" })] {
            let (yaml, path) = with_option(option, &value);
            assert_eq!(read(&yaml, &[]).map(drop), Err(format!("{path}: {message}")), "{yaml}");
        }
        let path = option.replace('*', "audit").replace("[]", ".0");
        let variable = format!("JOBGATE_{}", path.to_uppercase().replace('.', "__"));
        for variable in [variable.clone(), format!("{variable}__FILE")] {
            let refused = read(&with(JWT), &[(&variable, "1s")]).map(drop);
            assert_eq!(refused, Err(format!("environment variable {variable}: {message}")));
        }
    }
}

#[test]
fn a_removed_or_renamed_option_does_not_exist() {
    let mut existing = BTreeSet::new();
    options(&Config::json_schema(), "", &mut existing);
    for old in REMOVED.iter().chain(&RENAMED).map(|(old, _)| old) {
        let below = format!("{old}.");
        let found = existing.iter().find(|option| option == old || option.starts_with(&below));
        assert_eq!(found, None, "{old}");
    }
    for (_, new) in RENAMED {
        assert!(existing.contains(new), "{new}");
    }
}
