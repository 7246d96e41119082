//! The limits of one client: requests a second, concurrent requests, watched jobs. The use by one client never counts
//! against another. Streams and their operations are limited in `streams`.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::http::error::{HttpRefusal, RefusalKind};
use crate::domain::principal::Principal;

/// After this many requests, clients without a recent request or without a permit are removed.
const FORGET_EVERY: usize = 4096;
/// The retry delay for a client with too many concurrent requests.
const BREATH: Duration = Duration::from_secs(1);

/// The limits of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Requests a second, once the burst is used up.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
    /// Concurrent requests.
    pub concurrent: usize,
    /// Jobs watched at the same time.
    pub jobs_watched: usize,
}

/// The current use by each client. A clone is cheap and shares the counts. The default has no limits.
#[derive(Clone, Default)]
pub struct ClientLimits(Option<Arc<ClientLimitState>>);

/// By the names of the clients, with a seed of this process.
type HeldByName = HashMap<Arc<str>, ClientUsage, foldhash::quality::RandomState>;

type RateStates = HashMapStateStore<Arc<str>, foldhash::quality::RandomState>;

type RequestRate = RateLimiter<Arc<str>, RateStates, RuntimeClock, NoOpMiddleware<Duration>>;

struct ClientLimitState {
    rules: ArcSwap<ClientRules>,
    clock: RuntimeClock,
    admissions: AtomicUsize,
    held: Mutex<HeldByName>,
}

struct ClientRules {
    settings: ClientSettings,
    pace: Arc<RequestRate>,
}

#[derive(Clone, Copy, Default)]
struct ClientUsage {
    requests: usize,
    jobs: usize,
}

/// The runtime's time since the start, which tests can pause.
#[derive(Clone, Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl ClientLimits {
    /// Starts from zero.
    pub fn new(settings: ClientSettings) -> Self {
        let clock = RuntimeClock(Instant::now());
        let rules = ArcSwap::from_pointee(ClientRules { settings, pace: pace(settings, &clock) });
        let (admissions, held) = (AtomicUsize::new(0), Mutex::default());
        Self(Some(Arc::new(ClientLimitState { rules, clock, admissions, held })))
    }

    /// Applies other limits from now on. Running requests continue and stay counted; if the rate changes, every client
    /// has a full burst again.
    pub fn set(&self, settings: ClientSettings) {
        let Some(inner) = &self.0 else { return };
        let before = inner.rules.load();
        let same = |of: fn(&ClientSettings) -> NonZeroU32| of(&before.settings) == of(&settings);
        let pace = if same(|settings| settings.per_second) && same(|settings| settings.burst) {
            Arc::clone(&before.pace)
        } else {
            pace(settings, &inner.clock)
        };
        inner.rules.store(Arc::new(ClientRules { settings, pace }));
    }

    /// Counts one operation of a client.
    ///
    /// # Errors
    /// 429, when it exceeds its rate.
    pub fn pace(&self, client: &Principal) -> Result<(), HttpRefusal> {
        let Some(inner) = self.with_settings(client) else { return Ok(()) };
        let rules = inner.rules.load();
        if inner.admissions.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            rules.pace.retain_recent();
            inner.lock().retain(|_, usage| usage.requests > 0 || usage.jobs > 0);
        }
        rules.pace.check_key(client.shared_name()).map_err(|until| {
            let wait = until.wait_time_from(inner.clock.now());
            let message =
                "rate limit exceeded for this client (requests_per_second); send requests more slowly";
            let value = rules.settings.per_second.get();
            refused(wait, message, "requests_per_second").with("value", value)
        })
    }

    /// Admits one request of a client; dropping the permit releases it.
    ///
    /// # Errors
    /// 429, when it exceeds its rate or its concurrent requests.
    pub fn admit(&self, client: &Principal) -> Result<RequestPermit, HttpRefusal> {
        self.pace(client)?;
        self.take(client, ClientUsage { requests: 1, jobs: 0 }, |usage, settings| {
            let message = "concurrency limit reached for this client (concurrent_requests); wait \
                for the pending responses";
            (usage.requests <= settings.concurrent).then_some(()).ok_or((
                message,
                "concurrent_requests",
                settings.concurrent,
            ))
        })
    }

    /// Permits a client to watch this many more jobs; dropping the permit releases them.
    ///
    /// # Errors
    /// 429, when it would watch more than its limit.
    pub fn watch(&self, client: &Principal, jobs: u64) -> Result<RequestPermit, HttpRefusal> {
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        self.take(client, ClientUsage { requests: 0, jobs }, |usage, settings| {
            let message =
                "subscribed job limit reached for this client (jobs_watched); close some subscriptions";
            (usage.jobs <= settings.jobs_watched).then_some(()).ok_or((
                message,
                "jobs_watched",
                settings.jobs_watched,
            ))
        })
    }

    fn with_settings(&self, client: &Principal) -> Option<&Arc<ClientLimitState>> {
        self.0.as_ref().filter(|_| !client.is_local())
    }

    /// Adds to the use by a client, if what it is then `fits`: else the message, the option and its value.
    fn take(
        &self,
        client: &Principal,
        taken: ClientUsage,
        fits: impl FnOnce(ClientUsage, &ClientSettings) -> Result<(), (&'static str, &'static str, usize)>,
    ) -> Result<RequestPermit, HttpRefusal> {
        let Some(inner) = self.with_settings(client) else { return Ok(RequestPermit { _taken: None }) };
        let name = client.shared_name();
        let mut guard = inner.lock();
        let held = &mut *guard;
        // the name is cloned only for a client without an entry
        let usage = match held.get_mut(name) {
            Some(usage) => usage,
            None => held.entry(Arc::clone(name)).or_default(),
        };
        let requests = usage.requests + taken.requests;
        let after = ClientUsage { requests, jobs: usage.jobs.saturating_add(taken.jobs) };
        fits(after, &inner.rules.load().settings)
            .map_err(|(message, limit, value)| refused(BREATH, message, limit).with("value", value))?;
        *usage = after;
        drop(guard);
        let client = Arc::clone(name);
        Ok(RequestPermit { _taken: Some(Admitted { inner: Arc::clone(inner), client, taken }) })
    }
}

fn pace(settings: ClientSettings, clock: &RuntimeClock) -> Arc<RequestRate> {
    let quota = Quota::per_second(settings.per_second).allow_burst(settings.burst);
    Arc::new(RateLimiter::new(quota, RateStates::default(), clock.clone()))
}

fn refused(wait: Duration, message: &'static str, limit: &'static str) -> HttpRefusal {
    HttpRefusal::new(RefusalKind::TooManyRequests, message).retry_after(wait.max(BREATH)).with("limit", limit)
}

impl ClientLimitState {
    fn lock(&self) -> MutexGuard<'_, HeldByName> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClientLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientLimits")
            .field(&self.0.as_ref().map(|inner| inner.rules.load().settings))
            .finish()
    }
}

/// The use by a client; dropping it releases it.
#[must_use = "dropping it releases the use"]
pub struct RequestPermit {
    _taken: Option<Admitted>,
}

struct Admitted {
    inner: Arc<ClientLimitState>,
    client: Arc<str>,
    taken: ClientUsage,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut held = self.inner.lock();
        let Some(usage) = held.get_mut(&self.client) else { return };
        usage.requests -= self.taken.requests;
        usage.jobs -= self.taken.jobs;
    }
}

impl fmt::Debug for RequestPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestPermit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ClientLimits {
        let some = |number| NonZeroU32::new(number).unwrap();
        ClientLimits::new(ClientSettings {
            per_second: some(2),
            burst: some(4),
            concurrent: 3,
            jobs_watched: 10,
        })
    }

    fn client(name: &'static str) -> Principal {
        Principal::new(name, [])
    }

    /// Uses up the burst of the client `busy`, and returns how many requests it had.
    fn use_up_burst(limits: &ClientLimits) -> usize {
        (0..100).take_while(|_| limits.pace(&client("busy")).is_ok()).count()
    }

    /// Permits for as many concurrent requests of the client `busy` as it may have.
    fn all_requests(limits: &ClientLimits) -> Vec<RequestPermit> {
        (0..3).map(|_| limits.admit(&client("busy")).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_burst() {
        let limits = limits();
        assert_eq!(use_up_burst(&limits), 4);
        assert!(limits.pace(&client("calm")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn used_burst_refills_at_the_rate_per_second() {
        let limits = limits();
        use_up_burst(&limits);
        tokio::time::advance(Duration::from_millis(1100)).await;
        let after: Vec<bool> = (0..3).map(|_| limits.pace(&client("busy")).is_ok()).collect();
        assert_eq!(after, [true, true, false], "two a second");
    }

    #[tokio::test(start_paused = true)]
    async fn local_principal_has_no_rate_limit() {
        let limits = limits();
        for _ in 0..100 {
            assert!(limits.pace(&Principal::local()).is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_permit_frees_a_concurrent_request() {
        let limits = limits();
        let permits = all_requests(&limits);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limits.admit(&client("busy")).unwrap_err().kind(), RefusalKind::TooManyRequests);
        let _calm = limits.admit(&client("calm")).unwrap();
        drop(permits);
        assert!(limits.admit(&client("busy")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn watched_jobs_are_limited_per_client_until_released() {
        let limits = limits();
        let watched = limits.watch(&client("busy"), 8).unwrap();
        assert!(limits.watch(&client("busy"), 3).is_err());
        assert!(limits.watch(&client("busy"), u64::MAX).is_err());
        let rest = limits.watch(&client("busy"), 2).unwrap();
        assert!(limits.watch(&client("busy"), 1).is_err());
        assert!(limits.watch(&client("calm"), 10).is_ok(), "another client is not affected");
        drop((watched, rest));
        assert!(limits.watch(&client("busy"), 10).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn client_without_permits_is_removed_after_some_requests() {
        let limits = limits();
        let _calm = limits.admit(&client("calm")).unwrap();
        drop(limits.admit(&client("busy")).unwrap());
        drop((limits.watch(&client("busy"), 8).unwrap(), limits.watch(&client("busy"), 2).unwrap()));
        for _ in 0..FORGET_EVERY {
            limits.pace(&client("other")).ok();
        }
        let held = limits.0.as_ref().unwrap().lock().keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(held, ["calm"]);
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_another_limit_keeps_the_used_burst() {
        let limits = limits();
        let settings = limits.0.as_ref().unwrap().rules.load().settings;
        assert_eq!(use_up_burst(&limits), 4);
        limits.set(ClientSettings { concurrent: 2, ..settings });
        assert!(limits.pace(&client("busy")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn changed_limit_counts_the_running_requests() {
        let limits = limits();
        let settings = limits.0.as_ref().unwrap().rules.load().settings;
        let permits = all_requests(&limits);
        limits.set(ClientSettings { concurrent: 4, burst: NonZeroU32::new(9).unwrap(), ..settings });
        let fourth = limits.admit(&client("busy")).unwrap();
        assert!(limits.admit(&client("busy")).is_err(), "the three before are still counted");
        drop((permits, fourth));
        assert!(limits.admit(&client("busy")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn rate_state_of_idle_clients_is_evicted() {
        let limits = limits();
        for number in 0..FORGET_EVERY {
            tokio::time::advance(Duration::from_millis(10)).await;
            limits.pace(&Principal::new(format!("client{number}"), [])).unwrap();
        }
        let known = limits.0.as_ref().unwrap().rules.load().pace.len();
        assert!(known < 200, "{known}");
    }
}
