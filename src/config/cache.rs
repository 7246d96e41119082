//! `cache`: freshness and size of the cache.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation::ValidationErrors;
use super::values::{DAY, GIB, HOUR, MIB, MINUTE, SECOND, Size, Span};
use crate::domain::duration;

/// Freshness and size of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Maximum age of a fresh answer about a job that is not terminal. A caller's `maxStaleness` overrides it.
    #[serde(with = "Span::<1, HOUR>")]
    pub fresh_for: Duration,
    /// Age from which a requested terminal job is served and fetched again in the background, where the same id can run twice
    /// (Supermetrics). Other terminal jobs are not fetched again.
    #[serde(with = "Span::<SECOND, { 30 * DAY }>")]
    pub terminal_revalidate_interval: Duration,
    /// Memory for jobs, in bytes. The least used jobs are evicted first; the embedded and the Redis store still have them.
    #[serde(with = "Size::<MIB, { 1024 * GIB }>")]
    pub max_bytes: usize,
    /// How long a job that is not terminal is kept in any store after the last answer about it.
    #[serde(with = "Span::<MINUTE, { 365 * DAY }>")]
    pub keep_unfinished: Duration,
    /// How long a terminal job is kept in any store after the last answer about it. An upstream may delete it sooner.
    #[serde(with = "Span::<MINUTE, { 3650 * DAY }>")]
    pub keep_finished: Duration,
    /// Memory for pages of result rows, in bytes. Also the maximum decoded body of one call for result rows. A row often has
    /// 1KiB.
    #[serde(with = "Size::<MIB, { 1024 * GIB }>")]
    pub rows_max_bytes: usize,
}

impl CacheConfig {
    pub(super) fn check(&self, faults: &mut ValidationErrors) {
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
