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

    /// Says whether the upstream documents that it forgets a job, with a code of its own for it. Where it does not, that a
    /// job is not found says nothing about the job's state.
    pub const fn documents_expiry(self) -> bool {
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
    /// It answers, and the answers cannot be used.
    Degraded,
    /// Its last calls failed.
    Unavailable,
    /// It refuses our credential.
    CredentialRejected,
    /// Its credential could not be read, so nothing is asked.
    Unconfigured,
}

/// Why a call brought no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// No connection: name or network.
    Connect,
    /// No connection, because of TLS.
    Tls,
    /// No complete answer in time.
    TimedOut,
    /// The connection broke before the answer was complete.
    Broken,
    /// It answered with an error of its own.
    ServerError,
    /// It answered with a redirect.
    Redirect,
    /// Something else than the API answered, such as a proxy with a page.
    ForeignAnswer,
    /// The answer cannot be understood.
    BadAnswer,
    /// The answer is larger than is read.
    TooLarge,
    /// It rejects the credential.
    CredentialRejected,
    /// It refuses this call.
    Refused,
    /// It asked for a pause.
    Throttled,
    /// The call cannot be made from what is configured.
    Unsendable,
}

impl SourceErrorKind {
    /// The word in the log and on the status page.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::ServerError => "server_error",
            Self::Redirect => "redirect",
            Self::ForeignAnswer => "foreign_answer",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::CredentialRejected => "credential_rejected",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Unsendable => "unsendable",
        }
    }
}

/// The last call of a source that brought no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// When.
    pub at: Timestamp,
    /// Of which kind.
    pub kind: SourceErrorKind,
    /// One bounded line without secrets: what is wrong, and what the upstream said.
    pub message: String,
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

/// How the credential of a source stands. What is read newly is tried before it comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialState {
    /// The newest value is in force.
    InForce,
    /// The source refuses the one in force.
    Refused,
    /// There is none that could be sent.
    Missing,
    /// A newer one was read, and the source has not yet said whether it takes it; the one before stays in force.
    NewOneUntried,
    /// The source refuses a newer one; the one before stays in force.
    NewOneRefused,
    /// What was read newly cannot be a secret, or cannot be read; the one before stays in force.
    NewOneUnusable,
}

/// The credential of a source as seen at one moment. Holds nothing of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialStatus {
    /// How it stands.
    pub state: CredentialState,
    /// Since when it stands so.
    pub since: Option<Timestamp>,
    /// Since when the one in force is, by this gateway; its age is counted from here.
    pub in_force_since: Option<Timestamp>,
    /// When the one in force ends, as far as it or the configuration says.
    pub expires_at: Option<Timestamp>,
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
    /// How its credential stands.
    pub credential: CredentialStatus,
    /// What it may be asked.
    pub budget: BudgetUse,
    /// No call is made before this time.
    pub throttled_until: Option<Timestamp>,
    /// It failed several times in a row and is left alone.
    pub breaker_open: bool,
    /// The last call without a usable answer; it may be long ago.
    pub last_error: Option<SourceError>,
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
            assert_eq!(Upstream::MindBridge.check_id(&id).is_ok(), mindbridge, "{text}");
            assert_eq!(Upstream::Supermetrics.check_id(&id).is_ok(), supermetrics, "{text}");
        }
    }
}
