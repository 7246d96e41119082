//! `cache`: how long an answer is good for, and how much is kept.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::values::{DAY, GIB, HOUR, MIB, MINUTE, SECOND, Size, Span};
use crate::domain::duration;

/// How long an answer is good for, and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// How old an unfinished job's answer may be and still count as fresh. A caller's `maxStaleness` overrules it.
    #[serde(with = "Span::<1, HOUR>")]
    pub fresh_for: Duration,
    /// How long "no such job" is believed, so that a wrong id does not cost a call each time.
    #[serde(with = "Span::<1, HOUR>")]
    pub missing_for: Duration,
    /// How often a finished job is looked at again where the same id can run twice (Supermetrics).
    #[serde(with = "Span::<SECOND, { 30 * DAY }>")]
    pub terminal_revalidate_interval: Duration,
    /// Memory for jobs, in bytes. The least used go first.
    #[serde(with = "Size::<MIB, { 1024 * GIB }>")]
    pub max_bytes: usize,
    /// How long an unfinished job is remembered after the last answer about it.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub keep_unfinished: Duration,
    /// How long a finished job is remembered; upstreams forget within hours.
    #[serde(with = "Span::<MINUTE, { 3650 * DAY }>")]
    pub keep_finished: Duration,
    /// Memory for pages of rows, in bytes.
    #[serde(with = "Size::<MIB, { 1024 * GIB }>")]
    pub rows_max_bytes: usize,
    /// How long a page of rows is kept.
    #[serde(with = "Span::<SECOND, DAY>")]
    pub rows_for: Duration,
}

impl CacheConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        for (name, kept) in [("keep_unfinished", self.keep_unfinished), ("keep_finished", self.keep_finished)]
        {
            if kept < self.fresh_for {
                let fresh_for = duration::format(self.fresh_for);
                let message = format!("must not be shorter than cache.fresh_for ({fresh_for})");
                faults.add(format!("cache.{name}"), message);
            }
        }
    }
}
