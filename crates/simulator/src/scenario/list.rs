//! How the list of an upstream differs from its reads by id.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as period;
use serde::Deserialize;

/// The anomalies of the list of an upstream. By default there are none.
///
/// They are about the list only: reads by id, single or in batches, always show the current state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimList {
    /// Answers the list with this status and the upstream's own error instead.
    pub refuse: Option<u16>,
    /// A change is in the list this long after the upstream's own time of it.
    #[serde(with = "period::required")]
    pub delay: Duration,
    /// Each request for the list finds all items this many positions later, and the last ones at the front: between
    /// two pages, some items are repeated and others missed.
    pub shift: u32,
    /// The ids that the list omits.
    pub omit: Vec<String>,
    /// The ids whose state in the list does not change from now on: from the start, or from the change of this
    /// setting, or from the birth of a later job.
    pub freeze: Vec<String>,
}
