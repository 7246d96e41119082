//! Limits bad credentials by client address: after some in a minute the response is 429. A valid credential is accepted
//! nevertheless: many clients can share an address, and one with a wrong key must not lock out the others.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};
use tokio::time::Instant;

use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::request_facts::RequestFacts;

/// The limit of each address in the window. It has no option: valid credentials are not affected by it.
const LIMIT: u32 = 30;
/// The time in which they are counted.
const WINDOW: Duration = Duration::from_mins(1);
/// The most addresses that are counted at the same time: some 1 MB. Further ones are not limited until the next minute.
const MOST_ADDRESSES: usize = 20_000;

/// Counts of bad credentials by address. A clone is cheap and shares the counts.
#[derive(Clone)]
pub struct BadCredentials(Arc<BadCredentialCounts>);

struct BadCredentialCounts {
    limit: u32,
    window: Mutex<BadCredentialWindow>,
}

struct BadCredentialWindow {
    began: Instant,
    counts: HashMap<IpAddr, u32>,
}

impl BadCredentials {
    /// With the limit of each address in a minute.
    fn new(limit: u32) -> Self {
        let window = BadCredentialWindow { began: Instant::now(), counts: HashMap::new() };
        Self(Arc::new(BadCredentialCounts { limit, window: Mutex::new(window) }))
    }

    /// Counts one bad credential from an address.
    ///
    /// # Errors
    /// Returns the time to wait if the limit was reached before.
    pub fn count(&self, address: IpAddr) -> Result<(), Duration> {
        let mut window = self.0.window.lock().unwrap_or_else(PoisonError::into_inner);
        let age = window.began.elapsed();
        if age >= WINDOW {
            // a new map, so that the memory of a flood is released
            *window = BadCredentialWindow { began: Instant::now(), counts: HashMap::new() };
        }
        let room = window.counts.len() < MOST_ADDRESSES;
        let address = neighbourhood(address);
        if !room && !window.counts.contains_key(&address) {
            return Ok(());
        }
        let count = window.counts.entry(address).or_insert(0);
        if *count >= self.0.limit {
            return Err(WINDOW.saturating_sub(age));
        }
        *count += 1;
        Ok(())
    }
}

/// A credential that a request presents, and from where.
pub(in crate::inbound) struct PresentedCredential {
    from: Option<IpAddr>,
}

impl PresentedCredential {
    /// Of a request.
    pub(in crate::inbound) fn of(request: &Request, facts: &RequestFacts) -> Self {
        let presented = request.headers().contains_key(header::AUTHORIZATION);
        let peer = if presented { facts.peer() } else { None };
        Self { from: peer.map(|peer| peer.address) }
    }

    /// Responds with 429 instead of 401 to an address that keeps presenting bad credentials.
    ///
    /// # Errors
    /// When the address has reached the limit.
    pub(in crate::inbound) fn limit(
        self,
        bad: &BadCredentials,
        response: Response,
    ) -> Result<Response, HttpRefusal> {
        let Some(peer) = self.from.filter(|_| response.status() == StatusCode::UNAUTHORIZED) else {
            return Ok(response);
        };
        match bad.count(peer) {
            Ok(()) => {
                tracing::info!(%peer, "invalid credential");
                Ok(response)
            }
            Err(wait) => {
                let message = "too many failed authentication attempts from this address; check the key, and retry later";
                Err(HttpRefusal::new(RefusalKind::TooManyRequests, message).retry_after(wait))
            }
        }
    }
}

impl Default for BadCredentials {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl fmt::Debug for BadCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BadCredentials").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

/// One machine can choose from a whole /64 of IPv6 addresses.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_attempts_are_limited_per_address() {
        let bad = BadCredentials::new(2);
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        assert_eq!([0; 3].map(|_| bad.count(one)), [Ok(()), Ok(()), Err(WINDOW)]);
        assert_eq!(bad.count(other), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_attempts_count_for_one_minute() {
        let (bad, one) = (BadCredentials::new(2), "10.0.0.1".parse().unwrap());
        assert_eq!([0; 3].map(|_| bad.count(one)), [Ok(()), Ok(()), Err(WINDOW)]);
        tokio::time::advance(WINDOW.checked_sub(Duration::from_secs(5)).unwrap()).await;
        assert_eq!(bad.count(one), Err(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(bad.count(one), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_attempts_of_one_ipv6_network_count_together() {
        let bad = BadCredentials::new(2);
        let [near, nearer, far] = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"];
        assert_eq!([near, nearer].map(|text| bad.count(text.parse().unwrap())), [Ok(()), Ok(())]);
        assert!(bad.count(near.parse().unwrap()).is_err());
        assert_eq!(bad.count(far.parse().unwrap()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_counted_addresses_is_bounded() {
        let bad = BadCredentials::new(1);
        for number in 0..100_000_u32 {
            bad.count(IpAddr::V4(number.into())).unwrap();
        }
        assert_eq!(bad.0.window.lock().unwrap().counts.len(), MOST_ADDRESSES);
        assert!(
            bad.count(IpAddr::V4(7.into())).is_err(),
            "the addresses that were counted before are still known"
        );
    }
}
