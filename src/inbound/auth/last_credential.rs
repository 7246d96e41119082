//! The credential that the last request of a connection presented, with its client: most connections present the same one
//! in each request, which then is neither parsed nor hashed again.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::domain::principal::Principal;

/// The last credential of a connection.
#[derive(Default)]
pub struct LastCredential(Mutex<Option<PresentedBefore>>);

struct PresentedBefore {
    header: SecretSlice<u8>,
    client: Principal,
    /// That of the clients when it was authenticated.
    generation: u64,
}

impl LastCredential {
    /// The client of a request, if it presents the same credential, and the clients are still those of this generation.
    ///
    /// A proxy may send the requests of many clients on one connection, so the comparison takes the same time wherever they
    /// differ.
    pub(in crate::inbound) fn client(&self, headers: &HeaderMap, generation: u64) -> Option<Principal> {
        let header = only_header(headers)?;
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |held: &&PresentedBefore| {
            held.generation == generation
                && verify_slices_are_equal(held.header.expose_secret(), header.as_bytes()).is_ok()
        };
        held.as_ref().filter(is_same).map(|held| held.client.clone())
    }

    /// Keeps the credential of a request, which was authenticated by the clients of this generation or a later one. One that
    /// expires is not kept: each request checks it anew.
    pub(in crate::inbound) fn keep(&self, headers: &HeaderMap, client: &Principal, generation: u64) {
        let credential = client.credential();
        let Some(header) = only_header(headers) else { return };
        if credential.fingerprint.is_none() || credential.expires.is_some() {
            return;
        }
        let header = header.as_bytes().to_vec().into();
        let held = PresentedBefore { header, client: client.clone(), generation };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }
}

/// The header, if it is sent once.
fn only_header(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (sent.next(), sent.next()) else { return None };
    Some(only)
}

impl fmt::Debug for LastCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastCredential").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::principal::CredentialInfo;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    fn client(expires: Option<Timestamp>) -> Principal {
        let credential = CredentialInfo { fingerprint: Some([1; 32]), expires, ..CredentialInfo::default() };
        Principal::new("a", []).with_credential(credential)
    }

    #[test]
    fn client_is_found_by_exactly_the_same_header() {
        let last = LastCredential::default();
        last.keep(&headers(&["Bearer jg_a"]), &client(None), 1);
        assert_eq!(last.client(&headers(&["Bearer jg_a"]), 1), Some(client(None)));
        for other in [
            &["Bearer jg_b"][..],
            &["bearer jg_a"],
            &["Bearer jg_a "],
            &["Bearer jg_"],
            &["Bearer jg_a", "Bearer jg_a"],
            &[],
        ] {
            assert_eq!(last.client(&headers(other), 1), None, "{other:?}");
        }
    }

    #[test]
    fn client_is_authenticated_again_by_other_clients() {
        let last = LastCredential::default();
        last.keep(&headers(&["Bearer jg_a"]), &client(None), 1);
        assert_eq!(last.client(&headers(&["Bearer jg_a"]), 2), None);
    }

    #[test]
    fn credential_that_expires_or_is_not_required_is_not_kept() {
        let last = LastCredential::default();
        let later = Timestamp::UNIX_EPOCH;
        last.keep(&headers(&["Bearer jgw_a"]), &client(Some(later)), 1);
        last.keep(&headers(&["Bearer any"]), &Principal::local(), 1);
        for presented in ["Bearer jgw_a", "Bearer any"] {
            assert_eq!(last.client(&headers(&[presented]), 1), None);
        }
    }
}
