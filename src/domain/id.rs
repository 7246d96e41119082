//! Identifiers: source names, an upstream's own ids, job keys and the opaque node id.
//!
//! Every identifier is validated at construction, so a value can be put into a URL segment, a log line or a cache key
//! without another check (`docs/adr/0006-validated-external-ids.md`).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The maximum length of a source name, in bytes.
pub const SOURCE_NAME_MAX: usize = 63;
/// The maximum length of an upstream's id, in bytes. Supermetrics documents 50 and uses longer ones.
pub const EXTERNAL_ID_MAX: usize = 200;

/// Why a name or an id is not valid. The text names the rule and never repeats the input, which is untrusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IdError {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// Longer than the limit, in bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A character outside the allowed set.
    #[error("may contain only {0}")]
    Charset(&'static str),
    /// Only dots, which a URL interprets as a step to another folder.
    #[error("must not consist of dots alone")]
    Dots,
    /// The name of another endpoint beside the jobs, which a URL with this id would call.
    #[error("must not be \"{0}\", which is an endpoint of the upstream")]
    Reserved(&'static str),
    /// Not a node id of this gateway, or not in its canonical spelling.
    #[error("is not a node ID of this gateway")]
    NotANodeId,
}

/// The name of a source: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter or a digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is empty, too long, or contains another character.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check_length(text, SOURCE_NAME_MAX)?;
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let starts = !text.starts_with(['-', '_']);
        if starts && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Charset("a-z, 0-9, - and _, starting with a letter or a digit"))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, as a shared string.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An upstream's own id of a job: 1 to 200 of letters, digits, `-`, `_`, `.`, `~` and `:`; never dots alone.
///
/// Case is kept: no upstream documents that it ignores case, so two spellings are two jobs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalId(Arc<str>);

impl ExternalId {
    /// Parses an id.
    ///
    /// # Errors
    /// When it is empty, too long, dots alone, or contains a character that is not safe in a URL segment.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check_length(text, EXTERNAL_ID_MAX)?;
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':');
        if !text.bytes().all(fits) {
            return Err(IdError::Charset("letters, digits, - _ . ~ and :"));
        }
        if text.bytes().all(|byte| byte == b'.') {
            return Err(IdError::Dots);
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The hasher of maps by job: seeded at random in each process, and several times faster than the one of the standard
/// library, which half of a lookup would be.
pub type JobHasher = foldhash::quality::RandomState;

/// Identifies a job: a source and the upstream's id. Compared in full, never by a hash of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// The source of the job.
    pub source: SourceName,
    /// The job's id at the upstream.
    pub external_id: ExternalId,
}

impl JobKey {
    /// The prefix of every node id before it is encoded; the digit is its format.
    const MARK: &'static str = "job1/";

    /// The opaque id of the job in the schema. It identifies a job and grants no access.
    pub fn node_id(&self) -> String {
        let mut id = String::new();
        self.write_node_id(&mut id);
        id
    }

    /// Appends the opaque id of the job to a text.
    pub fn write_node_id(&self, text: &mut String) {
        let parts = [Self::MARK, self.source.as_str(), "/", self.external_id.as_str()];
        URL_SAFE_NO_PAD.encode_string(parts.concat(), text);
    }

    /// Parses a node id.
    ///
    /// # Errors
    /// When it is not exactly a text that [`JobKey::node_id`] returns: one job has one id.
    pub fn from_node_id(text: &str) -> Result<Self, IdError> {
        if text.len() > 2 * (SOURCE_NAME_MAX + EXTERNAL_ID_MAX) {
            return Err(IdError::NotANodeId);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| IdError::NotANodeId)?;
        let plain = std::str::from_utf8(&bytes).map_err(|_| IdError::NotANodeId)?;
        let (source, external_id) = plain
            .strip_prefix(Self::MARK)
            .and_then(|rest| rest.split_once('/'))
            .ok_or(IdError::NotANodeId)?;
        let source = SourceName::parse(source).map_err(|_| IdError::NotANodeId)?;
        let external_id = ExternalId::parse(external_id).map_err(|_| IdError::NotANodeId)?;
        Ok(Self { source, external_id })
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.external_id)
    }
}

fn check_length(text: &str, max: usize) -> Result<(), IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        length if length > max => Err(IdError::TooLong(max)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn external_id_that_escapes_its_url_segment_is_rejected() {
        let long = "x".repeat(201);
        let cases = [
            ("", IdError::Empty),
            (long.as_str(), IdError::TooLong(200)),
            (".", IdError::Dots),
            ("..", IdError::Dots),
            ("....", IdError::Dots),
        ];
        for (text, expected) in cases {
            assert_eq!(ExternalId::parse(text).unwrap_err(), expected, "{text:?}");
        }
        for text in [
            "../a",
            "a/b",
            "a\\b",
            "%2e%2e",
            "%2F",
            "a b",
            "a\nb",
            "a\0b",
            "a?b",
            "a#b",
            "a&b",
            "a;b",
            "é",
            "\u{202e}",
            "a@b",
            "a\tb",
            "a\"b",
            "{}",
            "\u{ff0e}\u{ff0e}",
        ] {
            assert!(matches!(ExternalId::parse(text), Err(IdError::Charset(_))), "{text:?}");
        }
        for text in ["65f0c0ffee00000000000001", "AbC", "a.b", "..a", "a:b~c-d_e", &"x".repeat(200)] {
            assert_eq!(ExternalId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_source_name_is_a_lower_case_label() {
        for text in ["audit", "a", "0", "eu-west_2"] {
            assert_eq!(SourceName::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "Audit", "-a", "_a", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(SourceName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn non_canonical_node_id_is_rejected() {
        let key = JobKey {
            source: SourceName::parse("audit").unwrap(),
            external_id: ExternalId::parse("abc").unwrap(),
        };
        let id = key.node_id();
        for bad in
            [format!("{id}="), format!(" {id}"), format!("{id}A"), "audit/abc".to_owned(), String::new()]
        {
            assert_eq!(JobKey::from_node_id(&bad), Err(IdError::NotANodeId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn node_id_round_trips_to_its_job_key(source in "[a-z0-9][a-z0-9_-]{0,20}", external in "[A-Za-z0-9_~:.-]{0,20}[A-Za-z0-9]") {
            let key = JobKey { source: SourceName::parse(&source).unwrap(), external_id: ExternalId::parse(&external).unwrap() };
            prop_assert_eq!(JobKey::from_node_id(&key.node_id()), Ok(key));
        }

        #[test]
        fn decoded_node_id_encodes_to_the_same_text(text in "[A-Za-z0-9_=-]{0,60}") {
            if let Ok(key) = JobKey::from_node_id(&text) {
                prop_assert_eq!(key.node_id(), text);
            }
        }
    }
}
