//! The `MindBridgeTenant` half of a scenario: the tenant, its jobs and the steps of their scripts.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::serde::unsigned_duration::friendly::compact as period;
use secrecy::SecretString;
use serde::Deserialize;

use super::SimList;
use crate::progress::Family;

/// A simulated `MindBridgeTenant` tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MindBridgeTenant {
    /// The only bearer token accepted.
    #[serde(deserialize_with = "super::secret")]
    pub token: SecretString,
    /// The jobs.
    pub jobs: Vec<MindBridgeJob>,
    /// The latency of every answer.
    #[serde(with = "period::required")]
    pub latency: Duration,
    /// The largest page of the collection query, whatever the `size`.
    pub max_page_size: Option<u32>,
    /// Answers the collection query with this status (403, 404 or 405) instead.
    pub refuse_query: Option<u16>,
    /// Requests allowed within any one second; 429 beyond.
    pub limit_per_second: Option<u32>,
    /// How far the upstream's clock is ahead, in dates of bodies and headers; behind, when negative.
    pub clock_skew: SignedDuration,
    /// The anomalies of the list: of the collection query by anything but ids.
    pub list: SimList,
}

impl Default for MindBridgeTenant {
    fn default() -> Self {
        Self {
            token: SecretString::from("simulated-mindbridge-token"),
            jobs: Vec::new(),
            latency: Duration::ZERO,
            max_page_size: None,
            refuse_query: None,
            limit_per_second: None,
            clock_skew: SignedDuration::ZERO,
            list: SimList::default(),
        }
    }
}

/// One async result and its script.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MindBridgeJob {
    /// The async result's id. With `every`, a run of `#` becomes the number of the birth.
    pub id: String,
    /// When the job is born, counted from the simulator's start.
    #[serde(with = "period::required")]
    pub born: Duration,
    /// Creates another such job after each such period, without end.
    #[serde(with = "period::optional")]
    pub every: Option<Duration>,
    /// The wire field `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The wire field `entityId`, unless a step has another.
    pub entity_id: Option<String>,
    /// The wire field `entityType`.
    pub entity_type: Option<String>,
    /// Who created it.
    pub created_by: SimUserInfo,
    /// Who changed it last, unless a step has another; `created_by` when absent.
    pub last_modified_by: Option<SimUserInfo>,
    /// The wire field `version` at birth; each later step adds one.
    pub first_version: i64,
    /// When the upstream removes the job, counted from its birth; never when absent.
    #[serde(with = "period::optional")]
    pub gone_at: Option<Duration>,
    /// The script, in order; the first step is at 0s.
    pub steps: Vec<MindBridgeStep>,
}

impl Default for MindBridgeJob {
    fn default() -> Self {
        Self {
            id: String::new(),
            born: Duration::ZERO,
            every: None,
            kind: "ANALYSIS_RUN".to_owned(),
            entity_id: Some("5f9b3c2e1d4a5b6c7d8e9f01".to_owned()),
            entity_type: Some("ANALYSIS".to_owned()),
            created_by: SimUserInfo::default(),
            last_modified_by: None,
            first_version: 1,
            gone_at: None,
            steps: Vec::new(),
        }
    }
}

impl MindBridgeJob {
    /// A job with the given script: pairs of seconds since birth and status.
    pub fn new(id: &str, life: &[(u64, &str)]) -> Self {
        let steps = life.iter().map(|(seconds, status)| MindBridgeStep {
            at: Duration::from_secs(*seconds),
            ..MindBridgeStep::new(status)
        });
        Self { id: id.to_owned(), steps: steps.collect(), ..Self::default() }
    }

    pub(crate) fn family(&self) -> Family<'_> {
        Family { pattern: &self.id, born: self.born, every: self.every }
    }

    pub(crate) fn moments(&self) -> Vec<Duration> {
        self.steps.iter().map(|step| step.at).collect()
    }
}

/// One step of a script: from `at` on, the job has these fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MindBridgeStep {
    /// When the step begins, counted from the birth.
    #[serde(with = "period::required")]
    pub at: Duration,
    /// The wire field `status`; any word, known or not.
    pub status: String,
    /// The wire field `error`.
    pub error: Option<String>,
    /// The wire field `errorMessage`.
    pub error_message: Option<String>,
    /// Replaces the job's `entityId` from here on.
    pub entity_id: Option<String>,
    /// Who made this change.
    pub last_modified_by: Option<SimUserInfo>,
}

impl MindBridgeStep {
    /// A step with this status, at the birth unless `at` is changed.
    pub fn new(status: &str) -> Self {
        Self { status: status.to_owned(), ..Self::default() }
    }
}

/// A person in the wire form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimUserInfo {
    /// The wire field `userId`.
    pub user_id: String,
    /// The wire field `userName`.
    pub user_name: String,
}

impl Default for SimUserInfo {
    fn default() -> Self {
        Self { user_id: "5e8d2a7b4c1f3e6a9b0c1d2e".to_owned(), user_name: "Ada Auditor".to_owned() }
    }
}
