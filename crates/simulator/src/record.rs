//! The record of requests: the tests' oracle for how often, how and how wrongly the gateway calls.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{Endpoint, SimUpstream};

/// How many requests the record keeps: some 10 MB, so that the memory of a running demo does not grow.
const KEPT: usize = 20_000;

/// One request to an upstream, and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The upstream of the request.
    pub upstream: SimUpstream,
    /// The endpoint of the request.
    pub endpoint: Endpoint,
    /// The HTTP method.
    pub method: String,
    /// The path as it was sent, without the query string, which may contain a key.
    pub path: String,
    /// The decoded ids in the request, in its order.
    pub ids: Vec<String>,
    /// The collection query's `page` and `size`.
    pub page: Option<(u64, u64)>,
    /// The status call's `offset_start` and `offset_end`, if given.
    pub offsets: (Option<u64>, Option<u64>),
    /// What a list was requested for: `MindBridgeTenant`'s filter, or Supermetrics' parameters without the key.
    pub filter: Option<Value>,
    /// How the client authenticated.
    pub auth: Auth,
    /// Which of the accepted credentials it was, in the order in which they were first accepted; `None` for a wrong
    /// one.
    pub credential: Option<usize>,
    /// What a correct client would not have done; several remarks are joined by `; `.
    pub violation: Option<String>,
    /// The fault that was played for this request.
    pub fault: Option<&'static str>,
    /// When the request had been read.
    pub started: Instant,
    /// When the last byte of the answer was handed over, or the client disconnected.
    pub ended: Option<Instant>,
    /// The status of the answer; `None` before it, or if the connection was closed without one.
    pub status: Option<u16>,
}

/// How a client authenticated. The credential itself is never recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Auth {
    /// The right credential as `Authorization: Bearer`.
    Bearer,
    /// The right credential as the `api_key` parameter.
    ApiKey,
    /// No credential.
    None,
    /// A credential that is not accepted.
    Wrong,
}

impl Auth {
    /// The word used in `/_sim/requests`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::ApiKey => "api_key",
            Self::None => "none",
            Self::Wrong => "wrong",
        }
    }
}

impl RecordedRequest {
    /// Renders the entry for `/_sim/requests`, with times in milliseconds since `epoch`.
    pub(super) fn to_json(&self, epoch: Instant) -> Value {
        let millis = |at: Instant| at.saturating_duration_since(epoch).as_millis().to_string().parse().ok();
        let started: Option<u64> = millis(self.started);
        let ended: Option<u64> = self.ended.and_then(millis);
        json!({
            "upstream": self.upstream.as_str(),
            "endpoint": self.endpoint.as_str(),
            "method": self.method,
            "path": self.path,
            "ids": self.ids,
            "page": self.page.map(|(page, size)| json!({ "page": page, "size": size })),
            "offset_start": self.offsets.0,
            "offset_end": self.offsets.1,
            "filter": self.filter,
            "auth": self.auth.as_str(),
            "credential": self.credential,
            "violation": self.violation,
            "fault": self.fault,
            "started_ms": started,
            "ended_ms": ended,
            "status": self.status,
        })
    }
}

/// The entries, and how many requests are in flight.
#[derive(Debug)]
pub(super) struct RequestLog {
    entries: Mutex<Entries>,
    /// Notifies waiters that an entry was added.
    added: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Each with its number, in ascending order.
    kept: VecDeque<(u64, RecordedRequest)>,
    /// The number of the next entry; numbers are never reused.
    next: u64,
    in_flight: [usize; 2],
    max_in_flight: [usize; 2],
    /// How many requests each endpoint of each upstream received, those that are not kept included.
    received: [[u64; Endpoint::ALL.len()]; 2],
}

impl Entries {
    /// The entry with this number, unless it was cleared or evicted meanwhile.
    fn at(&mut self, number: u64) -> Option<&mut RecordedRequest> {
        let index = self.kept.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.kept.get_mut(index).map(|(_, request)| request)
    }
}

impl RequestLog {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), added: watch::Sender::new(()) }
    }

    /// Adds an entry and returns its number, for the calls below.
    pub(super) fn begin(&self, request: RecordedRequest) -> u64 {
        let mut entries = self.lock();
        let lane = request.upstream.index();
        entries.in_flight[lane] += 1;
        entries.received[lane][request.endpoint.index()] += 1;
        entries.max_in_flight[lane] = entries.max_in_flight[lane].max(entries.in_flight[lane]);
        if entries.kept.len() == KEPT {
            entries.kept.pop_front();
        }
        let number = entries.next;
        entries.next += 1;
        entries.kept.push_back((number, request));
        drop(entries);
        self.added.send_replace(());
        number
    }

    pub(super) fn faulted(&self, number: u64, fault: &'static str) {
        if let Some(request) = self.lock().at(number) {
            request.fault = Some(fault);
        }
    }

    pub(super) fn answered(&self, number: u64, status: u16) {
        if let Some(request) = self.lock().at(number) {
            request.status = Some(status);
        }
    }

    pub(super) fn end(&self, number: u64, upstream: SimUpstream) {
        let mut entries = self.lock();
        entries.in_flight[upstream.index()] -= 1;
        if let Some(request) = entries.at(number) {
            request.ended = Some(Instant::now());
        }
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.lock().kept.iter().map(|(_, request)| request.clone()).collect()
    }

    pub(super) fn max_in_flight(&self, upstream: SimUpstream) -> usize {
        self.lock().max_in_flight[upstream.index()]
    }

    /// How many requests an endpoint of an upstream received since the record was cleared.
    pub(super) fn received(&self, upstream: SimUpstream, endpoint: Endpoint) -> u64 {
        self.lock().received[upstream.index()][endpoint.index()]
    }

    /// Clears one upstream's entries and counters, or all of them, and resets its highest number in flight.
    pub(super) fn clear(&self, upstream: Option<SimUpstream>) {
        let mut entries = self.lock();
        for lane in SimUpstream::ALL {
            if upstream.is_none_or(|only| only == lane) {
                entries.max_in_flight[lane.index()] = entries.in_flight[lane.index()];
                entries.received[lane.index()] = [0; Endpoint::ALL.len()];
            }
        }
        entries.kept.retain(|(_, request)| upstream.is_some_and(|only| only != request.upstream));
    }

    /// Waits until the record contains `count` requests.
    pub(super) async fn wait_for(&self, count: usize) {
        let mut added = self.added.subscribe();
        while self.lock().kept.len() < count {
            // The sender is in `self`, so this cannot fail.
            if added.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
