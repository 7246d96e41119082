//! How the HTTP client is built: what it trusts, and what it never does.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client without redirects and without a proxy: the key is sent to the given address only. No retries of its own.
///
/// It trusts the machine's roots and the compiled-in Mozilla ones, so that TLS also works on a machine without a
/// certificate store. Installs the process's TLS crypto provider if none is installed yet.
///
/// # Errors
/// Returns an error if TLS cannot be set up on this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "the only client of this crate, which is independent of the gateway"
)]
pub(super) fn client() -> reqwest::Result<Client> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // losing the race to another thread is fine: a provider is installed then
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }
    let compiled_in =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok());
    Client::builder()
        .user_agent(concat!("jobgate/", env!("CARGO_PKG_VERSION"), " (job)"))
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .http1_only()
        .gzip(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tls_certs_merge(compiled_in)
        .build()
}
