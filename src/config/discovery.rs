//! `sources.<name>.discovery`: what is listed at a source.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation::ValidationErrors;
use super::values::{Count, DAY, MINUTE, Span};
use crate::domain::upstream::{Upstream, names_of};

/// The longest id of a data source.
const DATA_SOURCE_MAX: usize = 100;

/// What is listed at a source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Discovery")]
pub struct DiscoveryConfig {
    /// Whether jobs that no client requested are discovered: listed, kept, and shown to clients that may read them.
    pub enabled: bool,
    /// How long ago a job may have changed to be discovered by the first list.
    #[serde(with = "Span::<MINUTE, { 90 * DAY }>")]
    pub since: Duration,
    /// Maximum number of discovered jobs. Further ones are not discovered.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_jobs: u32,
    /// Supermetrics only: the ids of the data sources whose queries are listed in place of polls, such as `GAWA`. Empty: each
    /// query is polled.
    pub data_sources: Vec<String>,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { enabled: false, since: Duration::from_hours(24), max_jobs: 50_000, data_sources: Vec::new() }
    }
}

impl DiscoveryConfig {
    /// Validates the section at `path`.
    pub(super) fn check(&self, path: &str, upstream: Option<Upstream>, faults: &mut ValidationErrors) {
        let at = || format!("{path}.data_sources");
        let has_them = upstream.is_none_or(|upstream| upstream.profile().lists_by_data_source);
        if !has_them && !self.data_sources.is_empty() {
            let names = names_of("and", |profile| profile.lists_by_data_source);
            faults.add(at(), format!("is only for {names}: remove it"));
        }
        let needs_them = upstream.is_some_and(|upstream| upstream.profile().lists_by_data_source);
        if self.enabled && needs_them && self.data_sources.is_empty() {
            faults.add(at(), "is missing: set the data sources to discover, such as [GAWA, AW]");
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_id = |id: &String| !id.is_empty() && id.len() <= DATA_SOURCE_MAX && id.bytes().all(fits);
        if !self.data_sources.iter().all(is_id) {
            faults.add(at(), "must contain ids of data sources, such as GAWA: letters, digits, - and _");
        }
    }
}
