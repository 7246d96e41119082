//! The kinds of upstream API, and what distinguishes them. The list of them is in [`details`](super::details).

pub use super::details::Upstream;
pub use super::profile::{CredentialForm, Profile};

/// The names of the upstreams with a property, for a message: `a`, `a or b`, `a, b or c` with that conjunction.
pub fn names_of(conjunction: &str, has: impl Fn(&Profile) -> bool) -> String {
    let profiles = Upstream::ALL.iter().map(|upstream| upstream.profile());
    let names: Vec<&str> = profiles.filter(|one| has(one)).map(|one| one.name).collect();
    listing(&names, conjunction)
}

fn listing(names: &[&str], conjunction: &str) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} {conjunction} {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ExternalId;

    #[test]
    fn names_are_listed_with_the_conjunction_before_the_last() {
        let cases: [(&[&str], &str); 4] =
            [(&[], ""), (&["a"], "a"), (&["a", "b"], "a or b"), (&["a", "b", "c"], "a, b or c")];
        for (names, expected) in cases {
            assert_eq!(listing(names, "or"), expected);
        }
    }

    #[test]
    fn id_outside_the_format_of_its_upstream_is_rejected() {
        for (text, mindbridge, supermetrics) in [
            ("AZ_az-09", true, true),
            ("a.b", true, false),
            ("a:b", true, false),
            ("a~b", true, false),
            ("query", false, true),
            ("Query", false, true),
            ("query1", true, true),
        ] {
            let id = ExternalId::parse(text).unwrap();
            assert_eq!((Upstream::MindBridge.profile().check_id)(&id).is_ok(), mindbridge, "{text}");
            assert_eq!((Upstream::Supermetrics.profile().check_id)(&id).is_ok(), supermetrics, "{text}");
        }
    }
}
