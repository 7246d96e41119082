//! The kinds of upstream API, and what distinguishes them.

use super::id::{ExternalId, IdError};

/// Declares an enum together with the list of its variants, so that the list is complete.
macro_rules! listed {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$of:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        pub enum $name {
            $($(#[$of])* $variant),+
        }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    };
}

listed! {
    /// A kind of upstream API. Its [`Profile`] has everything that the gateway must know to treat it like the others.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Upstream {
        /// MindBridge async results: analyses, ingestions, exports.
        MindBridge,
        /// Supermetrics query status.
        Supermetrics,
    }
}

/// A form in which an upstream accepts a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// `Authorization: Bearer …`.
    Bearer,
    /// The query parameter `api_key`.
    ApiKey,
}

/// What distinguishes one upstream API from another.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// The name in configuration, logs and the schema.
    pub name: &'static str,
    /// The forms of credential that it accepts.
    pub credential_forms: &'static [CredentialForm],
    /// Whether its jobs have kinds, by which a grant can be restricted.
    pub has_kinds: bool,
    /// Whether an id can start a second run after a terminal state.
    pub runs_again: bool,
    /// Whether it documents that it deletes jobs, with an error code of its own for it. If it does not, "not found" gives
    /// no information about the job's state.
    pub documents_expiry: bool,
    /// The maximum number of jobs in one request.
    pub ids_a_request: usize,
    /// Checks that an id can be one of this upstream's, so that an id that cannot exist is rejected before any call.
    pub check_id: fn(&ExternalId) -> Result<(), IdError>,
}

/// The names of the upstreams with a property, for a message: `a`, or `a and b` with that conjunction.
pub fn names_of(conjunction: &str, has: impl Fn(&Profile) -> bool) -> String {
    let profiles = Upstream::ALL.iter().map(|upstream| upstream.profile());
    let names: Vec<&str> = profiles.filter(|one| has(one)).map(|one| one.name).collect();
    names.join(&format!(" {conjunction} "))
}

#[cfg(test)]
mod tests {
    use super::*;

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
