//! TLS of the public listener: the certificate from the operator's files, reloaded when they change. TLS 1.2 and 1.3,
//! and HTTP/1.1 only. The content of a file is never repeated: a key in the wrong file must not be logged.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;
use crate::telemetry::throttle::Throttle;

/// The interval of the file checks.
const EVERY: Duration = Duration::from_secs(30);

/// The certificate of the listener. A clone is cheap and shares it.
#[derive(Clone)]
pub struct Certificate(Arc<CertificateState>);

struct CertificateState {
    files: TlsConfig,
    current: Arc<CurrentCertificate>,
    acceptor: TlsAcceptor,
    /// The digest of the files that are in use.
    seen: Mutex<[u8; 32]>,
    warning: Throttle,
}

/// The current certificate for handshakes.
#[derive(Debug)]
struct CurrentCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The content of the two files.
struct CertificateFiles {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateFiles {
    fn read(files: &TlsConfig) -> anyhow::Result<Self> {
        let read = |path: &Path, option: &str| {
            std::fs::read(path).with_context(|| format!("{option}: {} cannot be read", path.display()))
        };
        Ok(Self { cert: read(&files.cert, "server.tls.cert")?, key: read(&files.key, "server.tls.key")? })
    }

    fn digest(&self) -> [u8; 32] {
        let mut both = [0; 64];
        let (first, second) = both.split_at_mut(32);
        first.copy_from_slice(digest(&SHA256, &self.cert).as_ref());
        second.copy_from_slice(digest(&SHA256, &self.key).as_ref());
        let mut one = [0; 32];
        one.copy_from_slice(digest(&SHA256, &both).as_ref());
        one
    }

    /// The errors of the parsers quote lines of the files, so they are left out.
    fn certified(&self) -> anyhow::Result<CertifiedKey> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .ok()
            .filter(|chain: &Vec<_>| !chain.is_empty())
            .ok_or_else(|| anyhow!("server.tls.cert: holds no certificate in pem"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| anyhow!("server.tls.key: holds no private key in pem"))?;
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|_| {
            anyhow!("server.tls: the key is not that of the certificate, or of a kind that is not served")
        })
    }
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns an error if one cannot be read, is not PEM, or they do not match, naming the option.
    pub fn read(files: &TlsConfig) -> anyhow::Result<Self> {
        let read = CertificateFiles::read(files)?;
        let current = Arc::new(CurrentCertificate(ArcSwap::from_pointee(read.certified()?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .context("server.tls: this build has no TLS 1.2 and 1.3")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(CertificateState {
            files: files.clone(),
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            seen: Mutex::new(read.digest()),
            warning: Throttle::default(),
        })))
    }

    /// The acceptor of TLS handshakes.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.acceptor.clone()
    }

    /// Checks the files periodically, until `stop` is cancelled.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            self.refresh();
        }
    }

    /// Applies the current files, if they changed and are valid; else the old certificate stays, and the reason is
    /// logged. Two small reads from the disk.
    pub fn refresh(&self) {
        let read = CertificateFiles::read(&self.0.files);
        let renewed = read.and_then(|files| {
            let digest = files.digest();
            if *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) == digest {
                return Ok(false);
            }
            // the two files may be replaced one after the other: if they do not match, they are checked again
            self.0.current.0.store(Arc::new(files.certified()?));
            *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = digest;
            Ok(true)
        });
        match renewed {
            Ok(true) => tracing::info!("certificate reloaded"),
            Ok(false) => {}
            Err(error) => {
                if let Some(suppressed) = self.0.warning.admit() {
                    let reason = format!("{error:#}");
                    tracing::warn!(
                        reason,
                        suppressed,
                        "certificate not reloaded; the previous one stays active"
                    );
                }
            }
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.0.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    use super::*;

    struct LoadedCertificate {
        cert: String,
        key: String,
        der: CertificateDer<'static>,
    }

    fn made() -> LoadedCertificate {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        LoadedCertificate {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
        }
    }

    /// The certificate of a handshake, if it is one of these.
    async fn shown(certificate: &Certificate, known: &[&LoadedCertificate]) -> Option<usize> {
        let mut roots = RootCertStore::empty();
        for made in known {
            roots.add(made.der.clone()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (memory, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (client, server) =
            tokio::join!(connector.connect(name, far), certificate.acceptor().accept(memory));
        server.unwrap();
        let client = client.unwrap();
        let shown = client.get_ref().1.peer_certificates().unwrap().first().unwrap().clone();
        known.iter().position(|made| made.der == shown)
    }

    #[tokio::test]
    async fn new_certificate_is_loaded_only_when_complete_and_valid() {
        let [old, new] = [made(), made()];
        let folder = std::env::temp_dir().join(format!("jobgate-tls-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).unwrap();
        let files = TlsConfig { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
        let write = |cert: &str, key: &str| {
            std::fs::write(&files.cert, cert).unwrap();
            std::fs::write(&files.key, key).unwrap();
        };
        write(&old.cert, &old.key);
        let certificate = Certificate::read(&files).unwrap();
        for (cert, key, expected) in [
            (old.cert.as_str(), old.key.as_str(), 0),
            // half of the change
            (&new.cert, &old.key, 0),
            ("", "", 0),
            ("no pem", &new.key, 0),
            (&new.cert, &new.key, 1),
            (&new.cert, "no pem", 1),
            (&old.cert, &old.key, 0),
        ] {
            write(cert, key);
            certificate.refresh();
            assert_eq!(shown(&certificate, &[&old, &new]).await, Some(expected));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        certificate.refresh();
        assert_eq!(shown(&certificate, &[&old, &new]).await, Some(0));
    }
}
