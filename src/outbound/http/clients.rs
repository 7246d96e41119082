//! The HTTP clients of all sources, one for each proxy and TLS configuration, and the task that reads their files
//! again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::UpstreamHttpClient;
use super::egress::Egress;
use crate::config::{Environment, EnvironmentProxies, SourceConfig};
use crate::telemetry::throttle::Throttle;

/// The clients that are in use. Each source keeps a reference; a client without a source is dropped.
pub struct HttpClients {
    env: Arc<Environment>,
    proxies: EnvironmentProxies,
    held: Mutex<Vec<Weak<UpstreamHttpClient>>>,
    /// How often the files are read again.
    every: watch::Sender<Duration>,
}

impl HttpClients {
    /// With the environment variables, and the interval of the file reads.
    pub fn new(env: &Environment, every: Duration) -> Self {
        let proxies = EnvironmentProxies::read(env);
        let every = watch::Sender::new(every);
        Self { env: Arc::new(env.clone()), proxies, held: Mutex::default(), every }
    }

    /// The client for a source, shared with sources of the same proxy and TLS configuration. Blocks on the disk if it
    /// is new.
    pub fn http_client(&self, source: &SourceConfig) -> Arc<UpstreamHttpClient> {
        let egress = Egress::new(&source.egress, &source.base_url, &self.proxies);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|http_client| http_client.strong_count() > 0);
        if let Some(same) =
            held.iter().filter_map(Weak::upgrade).find(|http_client| *http_client.egress() == egress)
        {
            return same;
        }
        let http_client = Arc::new(UpstreamHttpClient::open(egress, Arc::clone(&self.env)));
        held.push(Arc::downgrade(&http_client));
        http_client
    }

    /// Sets the interval of the file reads.
    pub fn set_interval(&self, every: Duration) {
        self.every.send_if_modified(|held| std::mem::replace(held, every) != every);
    }

    /// Reads the files periodically, until `end` is cancelled.
    pub async fn follow(self: Arc<Self>, end: CancellationToken) {
        let warning = Throttle::default();
        let mut every = self.every.subscribe();
        loop {
            let pause = *every.borrow_and_update();
            tokio::select! {
                () = end.cancelled() => return,
                _ = every.changed() => continue,
                () = tokio::time::sleep(pause) => {}
            }
            for http_client in self.with_files() {
                let renewed = tokio::task::spawn_blocking(move || http_client.refresh()).await;
                match renewed {
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Ok(true)) => tracing::info!(
                        "proxy credential or source certificates reloaded; new connections use them"
                    ),
                    Ok(Err(error)) => {
                        if let Some(suppressed) = warning.admit() {
                            tracing::warn!(
                                reason = %error, suppressed,
                                "proxy or certificate files of a source not reloaded; the previous ones stay active"
                            );
                        }
                    }
                }
            }
        }
    }

    fn with_files(&self) -> Vec<Arc<UpstreamHttpClient>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter_map(Weak::upgrade).filter(|http_client| http_client.egress().has_files()).collect()
    }
}

impl fmt::Debug for HttpClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClients").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}
