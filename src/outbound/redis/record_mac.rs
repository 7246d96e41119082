//! Authenticates the records in Redis: a record without a valid MAC of the configured secret and its own key is
//! rejected. Without a secret, only the checksum inside a record is verified: sufficient against accidental damage, and
//! no authentication.

use std::fmt;

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};

use crate::domain::id::JobKey;
use crate::outbound::stores::record::{self, DatedRecord, RecordClock, RecordError};

/// The first byte: whether a MAC follows.
const BARE: u8 = 0;
const SEALED: u8 = 1;
/// The length of an HMAC-SHA-256.
const TAG: usize = 32;

/// The result of opening a record.
pub(super) enum VerifiedRecord {
    Whole(DatedRecord),
    /// Why it is invalid.
    Damaged(&'static str),
    /// It is complete, and of a newer version.
    Strange,
}

/// Seals and opens records.
pub(super) struct RecordMac {
    key: Option<hmac::Key>,
}

impl RecordMac {
    pub(super) fn new(secret: Option<&SecretString>) -> Self {
        let key = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()));
        Self { key }
    }

    /// Returns whether there is a secret.
    pub(super) const fn has_secret(&self) -> bool {
        self.key.is_some()
    }

    /// Seals a body for the name of its key.
    pub(super) fn seal(&self, name: &[u8], body: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return [&[BARE], body].concat() };
        let tag = hmac::sign(key, &covered(name, body));
        [&[SEALED], tag.as_ref(), body].concat()
    }

    /// Opens the bytes under this name as the record of this job.
    pub(super) fn open_record(
        &self,
        key: &JobKey,
        name: &str,
        bytes: &[u8],
        frame: &RecordClock,
    ) -> VerifiedRecord {
        let Some(body) = self.open(name.as_bytes(), bytes) else {
            return VerifiedRecord::Damaged("is not sealed with this configuration's record_secret");
        };
        match record::read(key, &record::key_bytes(key), body, frame) {
            Ok(held) => VerifiedRecord::Whole(held),
            Err(RecordError::Strange) => VerifiedRecord::Strange,
            Err(RecordError::Damaged) => VerifiedRecord::Damaged("is damaged"),
        }
    }

    /// The body, if it was sealed with this secret for this name; without a secret, any body that is not sealed.
    pub(super) fn open<'a>(&self, name: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
        match (bytes.split_first()?, &self.key) {
            ((&BARE, body), None) => Some(body),
            ((&SEALED, rest), Some(key)) => {
                let (tag, body) = rest.split_at_checked(TAG)?;
                hmac::verify(key, &covered(name, body), tag).ok().map(|()| body)
            }
            (_, _) => None,
        }
    }
}

impl fmt::Debug for RecordMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", if self.key.is_some() { "with a secret" } else { "without" })
    }
}

/// The length of the name comes first, so that name and body cannot be confused.
fn covered(name: &[u8], body: &[u8]) -> Vec<u8> {
    [&(name.len() as u64).to_be_bytes()[..], name, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_opens_only_with_its_own_secret_and_name() {
        let with = |secret: &str| RecordMac::new(Some(&SecretString::from(secret)));
        let sealed = with("a").seal(b"name", b"body");
        assert_eq!(with("a").open(b"name", &sealed), Some(&b"body"[..]));
        assert_eq!(with("b").open(b"name", &sealed), None, "another secret");
        assert_eq!(with("a").open(b"nam", &sealed), None, "another name");
        assert_eq!(with("a").open(b"nameb", &sealed), None, "a longer name");
        let bare = RecordMac::new(None).seal(b"name", b"body");
        assert_eq!(RecordMac::new(None).open(b"name", &bare), Some(&b"body"[..]));
        assert_eq!(with("a").open(b"name", &bare), None, "not sealed at all");
        assert_eq!(RecordMac::new(None).open(b"name", &sealed), None, "sealed, and no secret to verify it");
        for index in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[index] ^= 1;
            assert_eq!(with("a").open(b"name", &bent), None, "bit flipped in byte {index}");
        }
    }
}
