//! The names of keys in Redis. All start with the configured prefix and the version of the stored format; all data of
//! one job is in one hash, so that a script may access all of it also in a cluster.

use crate::domain::id::{JobKey, SourceName};

/// The version of the stored format. Replicas of different versions do not share data.
const VERSION: &str = "v1";

/// Creates key names.
#[derive(Debug)]
pub(super) struct RedisKeys {
    prefix: String,
}

impl RedisKeys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:{VERSION}") }
    }

    /// The hash of one job.
    pub(super) fn job(&self, key: &JobKey) -> String {
        format!("{}:{{{}/{}}}", self.prefix, key.source.as_str(), key.external_id.as_str())
    }

    /// The channel of notifications.
    pub(super) fn feed(&self) -> String {
        format!("{}:feed", self.prefix)
    }

    /// The keys of all stored jobs, in their order.
    pub(super) fn index(&self) -> String {
        format!("{}:index", self.prefix)
    }

    /// The jobs that changed recently, by time.
    pub(super) fn recent(&self) -> String {
        format!("{}:recent", self.prefix)
    }

    /// The tracked jobs with their labels.
    pub(super) fn tracked(&self) -> String {
        format!("{}:tracked", self.prefix)
    }

    /// The sweeps of a source, beside the lease on them.
    pub(super) fn sweep(&self, lease: &JobKey) -> String {
        format!("{}:sweep", self.job(lease))
    }

    /// How many jobs of a source each replica verifies.
    pub(super) fn verified(&self, source: &SourceName) -> String {
        format!("{}:verified:{}", self.prefix, source.as_str())
    }

    /// The replicas, by the expiry of their membership; and a mark that is only lost when Redis is emptied.
    pub(super) fn members(&self) -> [String; 2] {
        [format!("{}:{{members}}", self.prefix), format!("{}:{{members}}:born", self.prefix)]
    }

    /// The calls to a source, its running calls, its pause, the metadata of the call count, and the demand of each
    /// replica.
    pub(super) fn budget(&self, source: &SourceName) -> [String; 5] {
        let base = format!("{}:{{budget/{}}}", self.prefix, source.as_str());
        ["calls", "slots", "pause", "count", "demands"].map(|part| format!("{base}:{part}"))
    }
}
