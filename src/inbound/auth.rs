//! Who the caller is: the credential of a request, and the limit of invalid ones. Not here: the clients and their keys
//! (`outbound/identity`), and what a client may read (`jobs/visibility`).

pub mod authenticator;
pub mod bad_credentials;
pub(in crate::inbound) mod bearer;
pub mod last_credential;
