//! The scenario file: the accounts, jobs and faults of the two simulated upstreams.
//!
//! This file reads and checks a scenario. `progress` evaluates a job's script, `mindbridge` and `supermetrics` build
//! the answers.

mod list;
mod mindbridge;
mod supermetrics;

use std::{collections::HashSet, fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

pub use self::{
    list::SimList,
    mindbridge::{MindBridgeJob, MindBridgeStep, MindBridgeTenant, SimUserInfo},
    supermetrics::{
        Column, ColumnKind, QueryError, SimQueryMeta, SimResultMeta, SimRows, SupermetricsAccount,
        SupermetricsJob, SupermetricsStep,
    },
};
use super::SimUpstream;
use super::fault::SimFault;
use super::progress::Family;

/// The scenario of `jobgate demo`, and the second example that a user can copy.
const DEMO: &str = include_str!("scenario/demo.yaml");

/// The most rows that the upstream returns for one query.
const MAX_ROWS: u64 = 1_000_000;

/// The two simulated upstreams: their credentials, their jobs and their faults.
///
/// Every field has a default, so `Scenario::default()` is two upstreams without jobs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Seeds all generated values: request ids and the cells of result rows.
    pub seed: u64,
    /// The wall-clock time at which the scripts begin; the real time when absent.
    pub start: Option<jiff::Timestamp>,
    /// The simulated `MindBridgeTenant` tenant.
    pub mindbridge: MindBridgeTenant,
    /// The simulated Supermetrics account.
    pub supermetrics: SupermetricsAccount,
    /// Faults that are active from the start, tried in this order.
    pub faults: Vec<SimFault>,
}

impl Scenario {
    /// Reads a scenario from YAML and checks it.
    ///
    /// # Errors
    /// Every error found, each with the path of its field. A document that does not parse gives one.
    pub fn from_yaml(text: &str) -> Result<Self, ScenarioError> {
        let mut path = String::new();
        let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
        // Without the snippet: it would print the lines around the error, and they may contain a token.
        let scenario: Self = read.map_err(|error| {
            let problem = error.without_snippet().to_string();
            ScenarioError { faults: vec![ScenarioFault { path, problem }] }
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Builds the scenario of `jobgate demo`: a few running jobs per upstream, and new ones all the time.
    ///
    /// # Panics
    /// Never: the text is compiled in, and a test loads it.
    pub fn demo() -> Self {
        Self::from_yaml(DEMO).expect("the built-in scenario is valid")
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    /// All errors together, each with the path of its field.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let mut faults = Vec::new();
        let mut fault = |path: String, problem: &str| {
            faults.push(ScenarioFault { path, problem: problem.to_owned() });
        };
        for (path, secret) in [
            ("mindbridge.token", &self.mindbridge.token),
            ("supermetrics.api_key", &self.supermetrics.api_key),
        ] {
            if secret.expose_secret().is_empty() {
                fault(path.to_owned(), "is empty: write the credential the simulator accepts");
            }
        }
        for (path, limit) in [
            ("mindbridge.max_page_size", self.mindbridge.max_page_size),
            ("mindbridge.limit_per_second", self.mindbridge.limit_per_second),
            ("supermetrics.limit_per_second", self.supermetrics.limit_per_second),
            ("supermetrics.hourly_limit", self.supermetrics.hourly_limit),
        ] {
            if limit == Some(0) {
                fault(path.to_owned(), "must be 1 or more, or be omitted");
            }
        }
        for (path, list) in
            [("mindbridge.list", &self.mindbridge.list), ("supermetrics.list", &self.supermetrics.list)]
        {
            if list.refuse.is_some_and(|status| !(400..=599).contains(&status)) {
                fault(format!("{path}.refuse"), "must be the status of an error, such as 403");
            }
        }
        for (n, job) in self.supermetrics.jobs.iter().enumerate() {
            if job.rows.count > MAX_ROWS {
                let path = format!("supermetrics.jobs[{n}].rows.count");
                fault(path, "must be at most 1000000, the maximum of the upstream");
            }
        }
        let jobs = self.mindbridge.jobs.iter().enumerate().map(|(n, job)| {
            (format!("mindbridge.jobs[{n}]"), SimUpstream::MindBridge, job.family(), job.moments(), None)
        });
        let jobs = jobs.chain(self.supermetrics.jobs.iter().enumerate().map(|(n, job)| {
            let path = format!("supermetrics.jobs[{n}]");
            (path, SimUpstream::Supermetrics, job.family(), job.moments(), job.rerun_every)
        }));
        let mut seen = HashSet::new();
        for (path, upstream, family, moments, rerun_every) in jobs {
            check_job(&path, &family, &moments, rerun_every, &mut fault);
            if !family.pattern.is_empty() && !seen.insert((upstream, family.pattern.to_owned())) {
                fault(format!("{path}.id"), "is used twice: the ids of an upstream's jobs must be unique");
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(ScenarioError { faults }) }
    }
}

fn check_job(
    path: &str,
    family: &Family<'_>,
    moments: &[Duration],
    rerun_every: Option<Duration>,
    fault: &mut impl FnMut(String, &str),
) {
    if family.pattern.is_empty() {
        fault(format!("{path}.id"), "is missing: set the upstream's id of the job");
    }
    match (family.every, family.pattern.contains('#')) {
        (Some(Duration::ZERO), _) => fault(format!("{path}.every"), "must be 1s or more"),
        (Some(_), false) => {
            fault(
                format!("{path}.id"),
                "has no `#`: with `every`, it must contain `#` for the number of the job",
            );
        }
        (None, true) => {
            fault(format!("{path}.every"), "is missing: an id with `#` requires the interval between jobs");
        }
        (Some(_), true) | (None, false) => {}
    }
    if moments.first() != Some(&Duration::ZERO) {
        fault(format!("{path}.steps"), "must begin at 0s");
    }
    if !moments.is_sorted_by(|earlier, later| earlier < later) {
        fault(format!("{path}.steps"), "must be in ascending order of `at`");
    }
    if rerun_every.is_some_and(|every| moments.last().is_some_and(|last| every <= *last)) {
        fault(format!("{path}.rerun_every"), "must be later than the last step");
    }
}

/// Why a scenario was rejected: every error found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// The errors, at least one.
    pub faults: Vec<ScenarioFault>,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the scenario is not valid")?;
        for ScenarioFault { path, problem } in &self.faults {
            write!(out, "\n  {path}: {problem}")?;
        }
        Ok(())
    }
}

/// One error of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioFault {
    /// The field, such as `mindbridge.jobs[0].id`; `.` for the document itself.
    pub path: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

/// Reads a secret straight into its wrapper.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}
