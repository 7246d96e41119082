//! Outbound connections of a source: proxy, certificate authorities and client certificate. Contains paths and
//! references, no secret.

use std::path::PathBuf;

use serde::{Serialize, Serializer};
use url::Url;

use super::credential::{RawSecretRef, SecretRef};
use super::validation::ValidationErrors;

/// The value that disables the proxy of the environment.
const NO_PROXY: &str = "none";

/// Outbound connections of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EgressConfig {
    /// The proxy. None: the proxy of the environment, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyConfig>,
    /// The reference to user and password for the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_credential: Option<SecretRef>,
    /// The trusted certificate authorities, in place of the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate. Always with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
}

/// The proxy of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyConfig {
    /// None, whatever the environment contains.
    None,
    /// The one at this URL: http or https, with neither user nor path.
    Url(Url),
}

impl Serialize for ProxyConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str(NO_PROXY),
            Self::Url(url) => serializer.collect_str(url),
        }
    }
}

/// The egress options of a source, as they are written.
#[derive(Default)]
pub(super) struct RawEgress {
    pub(super) proxy: Option<String>,
    pub(super) proxy_credential: Option<RawSecretRef>,
    pub(super) ca_file: Option<String>,
    pub(super) client_cert: Option<String>,
    pub(super) client_key: Option<String>,
}

impl RawEgress {
    /// Checks the options of the source at `path` against each other.
    pub(super) fn accept(
        self,
        path: &str,
        base_url: Option<&Url>,
        faults: &mut ValidationErrors,
    ) -> EgressConfig {
        let proxy = self.proxy.and_then(|text| proxy(&text, &format!("{path}.proxy"), faults));
        let at = format!("{path}.proxy_credential");
        let proxy_credential = self.proxy_credential.and_then(|secret| secret.accept(&at, faults));
        if proxy_credential.is_some() && !matches!(proxy, Some(ProxyConfig::Url(_))) {
            faults.add(at, "is set, but no proxy is: set proxy, or remove this");
        }
        let mut file = |text: Option<String>, option: &str| {
            text.and_then(|text| file(text, &format!("{path}.{option}"), faults))
        };
        let ca_file = file(self.ca_file, "ca_file");
        let client_cert = file(self.client_cert, "client_cert");
        let client_key = file(self.client_key, "client_key");
        match (&client_cert, &client_key) {
            (Some(_), None) => faults.add(format!("{path}.client_cert"), "requires client_key: add it"),
            (None, Some(_)) => faults.add(format!("{path}.client_key"), "requires client_cert: add it"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let plain = base_url.is_some_and(|url| url.scheme() == "http");
        if plain && client_cert.is_some() {
            faults.add(
                format!("{path}.client_cert"),
                "is not used, because base_url is http://: use https://, or remove this",
            );
        }
        let tls_to_proxy = matches!(&proxy, Some(ProxyConfig::Url(url)) if url.scheme() == "https");
        if plain && ca_file.is_some() && !tls_to_proxy {
            faults.add(
                format!("{path}.ca_file"),
                "is not used, because base_url is http://: use https://, or remove this",
            );
        }
        EgressConfig { proxy, proxy_credential, ca_file, client_cert, client_key }
    }
}

fn proxy(text: &str, path: &str, faults: &mut ValidationErrors) -> Option<ProxyConfig> {
    if text == NO_PROXY {
        return Some(ProxyConfig::None);
    }
    let message = match Url::parse(text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "must not contain a user or a password: put them under proxy_credential"
        }
        Ok(url) if is_proxy(&url) => return Some(ProxyConfig::Url(url)),
        Ok(_) | Err(_) => {
            "must be none or the URL of a proxy without a path, such as http://proxy.example:3128"
        }
    };
    faults.add(path, message);
    None
}

/// Whether a URL is valid for a proxy, apart from its user.
pub(super) fn is_proxy(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The rule prevents that a key pasted in place of its path is printed as a path.
fn file(text: String, path: &str, faults: &mut ValidationErrors) -> Option<PathBuf> {
    if ["/", "./", "../"].iter().any(|start| text.starts_with(start)) {
        return Some(text.into());
    }
    faults.add(path, "must be a path that starts with /, ./ or ../, never the content itself");
    None
}
