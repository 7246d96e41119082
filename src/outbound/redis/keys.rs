//! The names of things in Redis. All begin with the operator's prefix and the version of what is stored; everything of one
//! job lies in one hash, so that a script may touch all of it also in a cluster.

use crate::domain::id::{JobKey, SourceName};

/// The version of what is stored. Replicas of different versions do not see each other.
const VERSION: &str = "v1";

/// Makes names.
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

    /// The channel of hints.
    pub(super) fn feed(&self) -> String {
        format!("{}:feed", self.prefix)
    }

    /// The keys of all jobs that are held, in their order.
    pub(super) fn index(&self) -> String {
        format!("{}:index", self.prefix)
    }

    /// The jobs that changed lately, by when.
    pub(super) fn recent(&self) -> String {
        format!("{}:recent", self.prefix)
    }

    /// The tracked jobs with their labels.
    pub(super) fn tracked(&self) -> String {
        format!("{}:tracked", self.prefix)
    }

    /// The replicas that are there, by when they would be missed; and a mark that only an emptied Redis loses.
    pub(super) fn members(&self) -> [String; 2] {
        [format!("{}:{{members}}", self.prefix), format!("{}:{{members}}:born", self.prefix)]
    }

    /// The calls to a source, its calls under way, its pause, what is known of the count of its calls, and what each replica
    /// needs of them.
    pub(super) fn budget(&self, source: &SourceName) -> [String; 5] {
        let base = format!("{}:{{budget/{}}}", self.prefix, source.as_str());
        ["calls", "slots", "pause", "count", "demands"].map(|part| format!("{base}:{part}"))
    }
}
