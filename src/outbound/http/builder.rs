//! The common configuration of every HTTP client of this process.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder};

/// How long a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection is kept, below the common limit of load balancers (60 s).
pub(super) const IDLE: Duration = Duration::from_secs(45);

/// The common configuration of every client of this process. No redirects, no referer, no proxy that is not configured,
/// no hidden retries; HTTP/1.1. The caller adds the trusted roots.
///
/// Installs the process's TLS crypto provider if none is installed yet.
#[expect(clippy::disallowed_methods, reason = "clients are built only here")]
pub(super) fn without_roots() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // losing the race to another thread is fine: a provider is installed then
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }
    Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
}

/// The compiled-in Mozilla roots, so that TLS also works on a machine without a certificate store.
pub(super) fn compiled_in_roots() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok())
}

/// A client without a proxy that trusts the machine's roots and the compiled-in ones.
pub(in crate::outbound) fn strict_client() -> ClientBuilder {
    without_roots().tls_certs_merge(compiled_in_roots())
}
