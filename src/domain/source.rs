//! The kinds of API we call, and how a source (one account of one of them) is doing.

use jiff::Timestamp;

use super::id::{ExternalId, IdError, SourceName};

/// A kind of API we call. A new member does not compile until each table has its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// MindBridge async results: analyses, ingestions, exports.
    MindBridge,
    /// Supermetrics query status.
    Supermetrics,
}

impl Upstream {
    /// The name in configuration, logs and the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MindBridge => "mindbridge",
            Self::Supermetrics => "supermetrics",
        }
    }

    /// Says whether an id can start a second run after its end (Supermetrics, "Expiry").
    pub const fn runs_again(self) -> bool {
        match self {
            Self::MindBridge => false,
            Self::Supermetrics => true,
        }
    }

    /// How many jobs one request can ask about (MindBridge "Reading many jobs in one request").
    pub const fn ids_a_request(self) -> usize {
        match self {
            Self::MindBridge => 100,
            Self::Supermetrics => 1,
        }
    }

    /// Checks that an id can be one of this upstream's, so that what cannot exist is refused before any call.
    ///
    /// # Errors
    /// When it holds a character that the upstream's ids never hold. MindBridge publishes no rule for its ids, so
    /// every [`ExternalId`] passes there but `query`: beside the jobs that is the collection's own endpoint.
    pub fn check_id(self, id: &ExternalId) -> Result<(), IdError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match self {
            // in any case: whether the upstream's paths fold it is not published
            Self::MindBridge if id.as_str().eq_ignore_ascii_case("query") => Err(IdError::Reserved("query")),
            Self::MindBridge => Ok(()),
            Self::Supermetrics if id.as_str().bytes().all(fits) => Ok(()),
            Self::Supermetrics => Err(IdError::Charset("letters, digits, - and _")),
        }
    }
}

/// How a source is doing, as far as its last calls tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceHealth {
    /// Its last call was answered.
    Healthy,
    /// Nothing was asked yet.
    Untried,
    /// It asked us to wait, or its budget is used up.
    Throttled,
    /// Its last calls failed.
    Unavailable,
    /// It refuses our credential.
    CredentialRejected,
    /// Its credential could not be read, so nothing is asked.
    Unconfigured,
}

/// What a source may be asked, and how much of it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUse {
    /// Calls a second, as configured.
    pub per_second: u32,
    /// Calls an hour, as configured.
    pub per_hour: u32,
    /// Calls at the same time, as configured.
    pub concurrency: u32,
    /// Calls under way now.
    pub in_flight: u32,
    /// Calls that could start now before the hourly limit is reached.
    pub left_this_hour: u32,
}

/// A source as seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Its kind.
    pub upstream: Upstream,
    /// How it is doing.
    pub health: SourceHealth,
    /// What it may be asked.
    pub budget: BudgetUse,
    /// No call is made before this time.
    pub throttled_until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_an_upstream_never_gives_is_refused() {
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
            assert_eq!(Upstream::MindBridge.check_id(&id).is_ok(), mindbridge, "{text}");
            assert_eq!(Upstream::Supermetrics.check_id(&id).is_ok(), supermetrics, "{text}");
        }
    }
}
