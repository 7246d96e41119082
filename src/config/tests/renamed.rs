//! Options that have a new name: each old name is rejected with the new one, in a file and in the environment.

use super::super::renamed::RENAMED;
use super::{read, with};

#[test]
fn a_renamed_option_is_refused_with_its_new_name() {
    for (old, new) in RENAMED {
        let (section, key) = old.split_once('.').unwrap();
        let fault = format!("{old}: is now {new}");
        for value in ["1s", "'x'", "null", "[1]", "{ a: b }"] {
            let yaml = with(&format!("{section}: {{ {key}: {value} }}"));
            assert_eq!(read(&yaml, &[]).map(drop), Err(fault.clone()), "{yaml}");
        }
        let variable = |path: &str| format!("JOBGATE_{}", path.to_uppercase().replace('.', "__"));
        let refused = read(&with(""), &[(&variable(old), "1s")]).map(drop);
        let fault = format!("environment variable {}: is now {}", variable(old), variable(new));
        assert_eq!(refused, Err(fault));
    }
    for (yaml, lines) in [
        ("follow:", "follow: is now poll"),
        ("follow: {}", "follow: is now poll"),
        ("follow: 1s", "follow: is now poll"),
        ("follow: { fastset: 1s }", "follow: is now poll"),
        (
            "follow: { fastest: 1s, at_most: 1d }\npoll: { min_interval: 2s }",
            "follow.at_most: is now poll.max_duration\nfollow.fastest: is now poll.min_interval",
        ),
    ] {
        assert_eq!(read(&with(yaml), &[]).map(drop), Err(lines.to_owned()), "{yaml}");
    }
    let refused = read(&with(""), &[("JOBGATE_FOLLOW__FASTSET", "1s")]).map(drop);
    let fault = "environment variable JOBGATE_FOLLOW__FASTSET: is now JOBGATE_POLL__FASTSET";
    assert_eq!(refused, Err(fault.to_owned()));
}
