//! When each source last proved that it is the configured one. A job that was observed and is no longer found expires
//! only while its upstream answers other requests: a wrong base URL finds nothing at all.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::SourceName;

/// When each source last proved that it is the configured one.
#[derive(Debug, Default)]
pub(super) struct SourceProofs(HashMap<SourceName, SourceProof>);

#[derive(Debug, Default)]
struct SourceProof {
    /// It answered for a job of its own, or the probe.
    answered: Option<Instant>,
    /// The probe was sent.
    probed: Option<Instant>,
}

impl SourceProofs {
    /// Records that a source proved its identity.
    pub(super) fn answered(&mut self, source: &SourceName) {
        // The entry is looked up first: the name is copied once for each source, and not with each answer.
        if let Some(proof) = self.0.get_mut(source) {
            proof.answered = Some(Instant::now());
        } else {
            self.0.insert(source.clone(), SourceProof { answered: Some(Instant::now()), probed: None });
        }
    }

    /// Returns whether a source proved its identity at this time or later.
    pub(super) fn answered_since(&self, source: &SourceName, since: Instant) -> bool {
        self.0.get(source).and_then(|proof| proof.answered).is_some_and(|answered| answered >= since)
    }

    /// Returns whether a source may be probed now: at most once in this interval.
    pub(super) fn may_probe(&mut self, source: &SourceName, every: Duration) -> bool {
        let proof = self.0.entry(source.clone()).or_default();
        let may = proof.probed.is_none_or(|probed| probed.elapsed() >= every);
        if may {
            proof.probed = Some(Instant::now());
        }
        may
    }
}
