//! The keys of one issuer, and the task that refreshes them. Reading the keys never waits and never fetches: an unknown
//! key id only requests a refresh, which the task runs unless the last one was a moment ago.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::keyset::KeySet;
use crate::config::{Environment, JwksRef};
use crate::outbound::http::{HttpClientError, UpstreamHttpClient, chain};
use crate::ports::BoxFuture;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::telemetry::throttle::Throttle;

/// The time between two refreshes. A new key is fetched sooner, since its first use requests a refresh.
const REFRESH: Duration = Duration::from_mins(5);
/// The least time between the last refresh and one that an unknown key id causes.
const NUDGE_GAP: Duration = Duration::from_secs(30);
/// The longest time until a failed refresh is retried.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The timeout of a refresh.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest key set, in bytes: a hundred keys with their certificates fit.
const SET_MAX: usize = 256 * 1024;

/// The location of a key set.
pub(super) trait JwksLocation: fmt::Debug + Send + Sync {
    /// Reads the current key set, or returns why it could not.
    fn read(&self) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// The keys of one issuer. Dropping it stops its task.
#[derive(Debug)]
pub(super) struct Keyring {
    shared: Arc<KeyringState>,
    _task: DropGuard,
}

#[derive(Debug, Default)]
struct KeyringState {
    keys: ArcSwap<KeySet>,
    refresh_requested: Notify,
}

impl Keyring {
    /// Starts the task for the keys of an issuer, whose name is for the log. Until the first refresh completes, there
    /// are no keys. The task stops when the keyring is dropped, or when `stop` is cancelled.
    pub(super) fn start(
        issuer: &str,
        location: Box<dyn JwksLocation>,
        spawner: &dyn Spawner,
        stop: &CancellationToken,
    ) -> Self {
        let shared = Arc::new(KeyringState::default());
        let stop = stop.child_token();
        let (kept, issuer, until) = (Arc::clone(&shared), issuer.to_owned(), stop.clone());
        let task = async move {
            until.run_until_cancelled(kept.keep(&issuer, &*location)).await;
        };
        spawner.spawn(TaskKind::Keys, Box::pin(task));
        Self { shared, _task: stop.drop_guard() }
    }

    /// The current keys.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.shared.keys.load_full()
    }

    /// Requests a refresh soon. Cheap, however often it is called.
    pub(super) fn want(&self) {
        self.shared.refresh_requested.notify_one();
    }
}

impl KeyringState {
    async fn keep(&self, issuer: &str, location: &dyn JwksLocation) {
        let warning = Throttle::default();
        let mut failures = 0_u32;
        loop {
            // this refresh covers all requests until now
            self.refresh_requested.notified().now_or_never();
            failures = match self.refresh(issuer, location).await {
                Ok(()) => 0,
                Err(reason) => {
                    if let Some(suppressed) = warning.admit() {
                        tracing::warn!(
                            issuer,
                            reason,
                            suppressed,
                            "issuer keys not fetched; the cached keys stay valid"
                        );
                    }
                    failures.saturating_add(1)
                }
            };
            let refreshed = Instant::now();
            let pause = match failures {
                0 => REFRESH,
                many => Duration::from_secs(1 << many.min(10)).min(RETRY_MAX),
            };
            tokio::select! {
                () = sleep_until(refreshed + pause) => {}
                () = self.refresh_requested.notified() => sleep_until(refreshed + pause.min(NUDGE_GAP)).await,
            }
        }
    }

    async fn refresh(&self, issuer: &str, location: &dyn JwksLocation) -> Result<(), String> {
        let read = tokio::time::timeout(FETCH_TIMEOUT, location.read()).await;
        let json = read.map_err(|_| "it took too long".to_owned())??;
        let keys = KeySet::read(&json).map_err(|error| error.to_string())?;
        if !self.keys.load().same_names(&keys) {
            tracing::info!(issuer, keys = keys.len(), "issuer keys changed");
        }
        self.keys.store(Arc::new(keys));
        Ok(())
    }
}

/// A configured location. A URL is fetched through the proxy of the environment.
///
/// # Errors
/// Returns an error if the HTTP client cannot be built on this machine, or the environment names an invalid proxy.
pub(super) fn location(jwks: &JwksRef, env: &Environment) -> Result<Box<dyn JwksLocation>, HttpClientError> {
    Ok(match jwks {
        JwksRef::Url(url) => {
            let http_client = UpstreamHttpClient::to(url, env)?;
            Box::new(RemoteKeys { http_client, url: url.clone() })
        }
        JwksRef::File(path) => Box::new(LocalKeys(path.clone())),
    })
}

#[derive(Debug)]
struct RemoteKeys {
    http_client: UpstreamHttpClient,
    url: Url,
}

impl JwksLocation for RemoteKeys {
    fn read(&self) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async {
            let reply = self.http_client.fetch(&self.url, SET_MAX, FETCH_TIMEOUT).await;
            let reply = reply.map_err(|error| chain(&error))?;
            if reply.status.is_success() {
                Ok(reply.body)
            } else {
                Err(format!("it is answered with {}", reply.status.as_u16()))
            }
        })
    }
}

#[derive(Debug)]
struct LocalKeys(PathBuf);

impl JwksLocation for LocalKeys {
    fn read(&self) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async {
            let mut json = Vec::new();
            let read = async {
                // one byte more than the limit: a device at the path must not fill the memory
                let file = tokio::fs::File::open(&self.0).await?;
                file.take(SET_MAX as u64 + 1).read_to_end(&mut json).await
            };
            read.await.map_err(|error| format!("the file cannot be read: {error}"))?;
            if json.len() > SET_MAX { Err("the file is too large".to_owned()) } else { Ok(json.into()) }
        })
    }
}
