//! The proxy, the trusted authorities and the client certificate of upstream calls. Reads the configured files and
//! builds a client from them. If a file cannot be read, no client is built: a call never uses another route than the
//! configured one. The content of a file is never printed.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Identity, Proxy};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use url::Url;

use super::builder::{IDLE, compiled_in_roots, without_roots};
use super::error::{EgressError, chain};
use super::mask::SecretMask;
use crate::config::{
    EgressConfig, Environment, EnvironmentProxies, ProxyConfig, ProxyVariableError, SecretRef,
};
use crate::outbound::credentials::secret;

/// The largest file, in bytes: a bundle of all public authorities takes a quarter of a megabyte.
const FILE_MAX: u64 = 4 << 20;

/// The proxy and TLS configuration of the calls to one host. Equal ones can share a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    via: EgressRoute,
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EgressRoute {
    Direct,
    /// The proxy of the configuration.
    Configured(Url, Option<SecretRef>),
    /// The proxy of an environment variable, which never changes.
    Environment(&'static str, Url),
    /// The variable contains no usable proxy.
    Unusable(ProxyVariableError),
}

/// A client and its related data.
pub(super) struct ReadyClient {
    pub(super) client: Client,
    /// Removes the secrets of the proxy from responses.
    pub(super) mask: SecretMask,
    /// Whether the calls use a proxy.
    pub(super) proxied: bool,
}

/// The content of the files at one moment.
pub(super) struct EgressFiles {
    proxy: Option<(Url, Option<SecretString>)>,
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, SecretSlice<u8>)>,
    /// Identifies the content.
    pub(super) digest: [u8; 32],
}

impl Egress {
    /// No proxy; trusts the machine's authorities and the built-in ones.
    pub const fn direct() -> Self {
        Self { via: EgressRoute::Direct, ca_file: None, client_cert: None, client_key: None }
    }

    /// From the configuration, for calls to a URL.
    pub fn new(config: &EgressConfig, url: &Url, proxies: &EnvironmentProxies) -> Self {
        let EgressConfig { proxy, proxy_credential, ca_file, client_cert, client_key } = config.clone();
        let via = match proxy {
            Some(ProxyConfig::None) => EgressRoute::Direct,
            Some(ProxyConfig::Url(proxy)) => EgressRoute::Configured(proxy, proxy_credential),
            None => Self::by_environment(url, proxies).via,
        };
        Self { via, ca_file, client_cert, client_key }
    }

    /// From the environment, for calls to a URL.
    pub fn by_environment(url: &Url, proxies: &EnvironmentProxies) -> Self {
        let via = match proxies.for_url(url) {
            Ok(None) => EgressRoute::Direct,
            Ok(Some(proxy)) => EgressRoute::Environment(proxy.variable, proxy.url.clone()),
            Err(fault) => EgressRoute::Unusable(fault),
        };
        Self { via, ..Self::direct() }
    }

    /// Returns whether it uses files, which can change.
    pub(super) const fn has_files(&self) -> bool {
        matches!(self.via, EgressRoute::Configured(_, Some(SecretRef::File(_))))
            || self.ca_file.is_some()
            || self.client_cert.is_some()
    }

    /// Reads the files. Blocks on the disk.
    pub(super) fn read(&self, env: &Environment) -> Result<EgressFiles, EgressError> {
        let proxy = match &self.via {
            EgressRoute::Direct => None,
            EgressRoute::Configured(url, None) => Some((url.clone(), None)),
            EgressRoute::Configured(url, Some(reference)) => {
                Some((url.clone(), Some(user_and_password(reference, env)?)))
            }
            EgressRoute::Environment(variable, url) => {
                Some((url.clone(), EnvironmentProxies::read(env).credential_in(variable)))
            }
            EgressRoute::Unusable(fault) => {
                return Err(EgressError { option: fault.variable, message: fault.message.to_owned() });
            }
        };
        let authorities = self.ca_file.as_deref().map(|path| file(path, "ca_file")).transpose()?;
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                Some((file(cert, "client_cert")?, SecretSlice::from(file(key, "client_key")?)))
            }
            (None, _) | (_, None) => None,
        };
        let mut digest = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            digest.update(&bytes.len().to_le_bytes());
            digest.update(bytes);
        };
        let secret = proxy.as_ref().and_then(|(_, secret)| secret.as_ref());
        part(secret.map(|secret| secret.expose_secret().as_bytes()).unwrap_or_default());
        part(authorities.as_deref().unwrap_or_default());
        part(identity.as_ref().map(|(cert, _)| cert.as_slice()).unwrap_or_default());
        part(identity.as_ref().map(|(_, key)| key.expose_secret()).unwrap_or_default());
        let mut read = [0; 32];
        read.copy_from_slice(digest.finish().as_ref());
        Ok(EgressFiles { proxy, authorities, identity, digest: read })
    }

    /// Builds a client from the content of the files.
    pub(super) fn client(&self, material: &EgressFiles) -> Result<ReadyClient, EgressError> {
        let mut builder = without_roots()
            .user_agent(concat!("jobgate/", env!("CARGO_PKG_VERSION")))
            .gzip(true)
            .pool_idle_timeout(IDLE);
        builder = match &material.authorities {
            None => builder.tls_certs_merge(compiled_in_roots()),
            Some(pem) => builder.tls_certs_only(self.authorities(pem)?),
        };
        if let Some((cert, key)) = &material.identity {
            builder = builder.identity(self.identity(cert, key)?);
        }
        let mut mask = SecretMask::default();
        if let Some((url, secret)) = &material.proxy {
            let fault = || EgressError { option: "proxy", message: "cannot be used as a proxy".to_owned() };
            let mut proxy = Proxy::all(url.clone()).map_err(|_| fault())?;
            if let Some(secret) = secret {
                let encoded = SecretString::from(STANDARD.encode(secret.expose_secret()));
                let mut value = HeaderValue::from_str(&format!("Basic {}", encoded.expose_secret()))
                    .map_err(|_| fault())?;
                value.set_sensitive(true);
                proxy = proxy.custom_http_auth(value);
                let password = secret.expose_secret().split_once(':').map(|(_, password)| password);
                let password = SecretString::from(password.unwrap_or_default());
                mask = SecretMask::of_secrets([secret, &password, &encoded]);
            }
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| EgressError {
            option: "ca_file",
            message: format!("TLS cannot be set up with it: {}", chain(&error.without_url())),
        })?;
        Ok(ReadyClient { client, mask, proxied: material.proxy.is_some() })
    }

    fn authorities(&self, pem: &[u8]) -> Result<Vec<Certificate>, EgressError> {
        let path = self.ca_file.as_deref().unwrap_or_else(|| Path::new(""));
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.ok().filter(|found| !found.is_empty());
        let found = found.ok_or_else(|| wrong("ca_file", path, "holds no certificate in PEM form"))?;
        let mut store = RootCertStore::empty();
        let certificate = |der: CertificateDer<'_>| {
            let bytes = der.to_vec();
            store.add(der.into_owned()).ok()?;
            Certificate::from_der(&bytes).ok()
        };
        let all: Option<Vec<_>> = found.into_iter().map(certificate).collect();
        all.ok_or_else(|| wrong("ca_file", path, "holds a certificate that is that of no authority"))
    }

    fn identity(&self, cert: &[u8], key: &SecretSlice<u8>) -> Result<Identity, EgressError> {
        let cert_path = self.client_cert.as_deref().unwrap_or_else(|| Path::new(""));
        let key_path = self.client_key.as_deref().unwrap_or_else(|| Path::new(""));
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let found = found.ok().filter(|found| !found.is_empty());
        let found =
            found.ok_or_else(|| wrong("client_cert", cert_path, "holds no certificate in PEM form"))?;
        let private = PrivateKeyDer::from_pem_slice(key.expose_secret())
            .map_err(|_| wrong("client_key", key_path, "holds no private key in PEM form"))?;
        CertifiedKey::from_der(found, private, &default_provider()).map_err(|_| {
            wrong(
                "client_key",
                key_path,
                "is not the key of client_cert, or of a kind that is not known here",
            )
        })?;
        let both = SecretSlice::from([key.expose_secret(), b"\n", cert].concat());
        Identity::from_pem(both.expose_secret())
            .map_err(|_| wrong("client_key", key_path, "and client_cert cannot be used together"))
    }
}

/// The user and the password for a proxy.
fn user_and_password(reference: &SecretRef, env: &Environment) -> Result<SecretString, EgressError> {
    let fault = |message: String| EgressError { option: "proxy_credential", message };
    if let SecretRef::File(path) = reference {
        regular(path, "proxy_credential")?;
    }
    let read = secret::read(reference, env).map_err(|bad| fault(format!("{reference} {bad}")))?;
    if read.expose_secret().contains(':') {
        Ok(read)
    } else {
        Err(fault(format!("{reference} must hold user:password, and holds no colon")))
    }
}

/// Reads a whole file, unless the read could block until another process writes, or fill the memory.
fn file(path: &Path, option: &'static str) -> Result<Vec<u8>, EgressError> {
    regular(path, option)?;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, option, &error))?;
    if bytes.len() as u64 > FILE_MAX { Err(wrong(option, path, "holds more than 4MiB")) } else { Ok(bytes) }
}

fn regular(path: &Path, option: &'static str) -> Result<(), EgressError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(wrong(option, path, "is not a regular file")),
        Err(error) => Err(unreadable(path, option, &error)),
    }
}

fn unreadable(path: &Path, option: &'static str, error: &std::io::Error) -> EgressError {
    EgressError { option, message: format!("file {} cannot be read: {error}", path.display()) }
}

fn wrong(option: &'static str, path: &Path, what: &str) -> EgressError {
    EgressError { option, message: format!("file {} {what}", path.display()) }
}

impl fmt::Debug for ReadyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyClient").field("proxied", &self.proxied).finish_non_exhaustive()
    }
}
