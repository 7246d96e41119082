//! The state of each requested job, and whether an answer is a change. No change is reported twice, however often the
//! stream had to be opened, and none after a job's final answer. Pure: no terminal, no gateway.

use super::gateway::{JobOutcome, WireRef, WireResult};
use super::line;
use super::mode::JobMode;
use super::outcome::ExitOutcome;

/// All jobs of one command, in the order of the arguments, each once.
#[derive(Debug)]
pub(super) struct JobTable {
    jobs: Vec<JobTableRow>,
}

/// One job.
#[derive(Debug)]
pub(super) struct JobTableRow {
    reference: WireRef,
    label: String,
    last: Option<WireResult>,
    rendered: Option<String>,
    outcome: Option<ExitOutcome>,
}

impl JobTable {
    /// A table without states.
    pub(super) fn new(refs: impl Iterator<Item = WireRef>) -> Self {
        let mut jobs: Vec<JobTableRow> = Vec::new();
        for reference in refs {
            if jobs.iter().all(|job| job.reference != reference) {
                let label = match &reference {
                    WireRef::Id(id) => id.clone(),
                    WireRef::External { source, external_id } => format!("{source}/{external_id}"),
                };
                let label = line::visible(&label).into_owned();
                jobs.push(JobTableRow { reference, label, last: None, rendered: None, outcome: None });
            }
        }
        Self { jobs }
    }

    /// The jobs.
    pub(super) fn jobs(&self) -> &[JobTableRow] {
        &self.jobs
    }

    /// The references, in groups of at most `size`.
    pub(super) fn groups(&self, size: usize) -> Vec<Vec<WireRef>> {
        self.jobs.chunks(size).map(|jobs| jobs.iter().map(|job| job.reference.clone()).collect()).collect()
    }

    /// Records an answer: the index of its job, if the answer changes it. `rendered` is its printed form.
    ///
    /// A job that was given in both forms is one job: the first of the two rows has the change.
    pub(super) fn take(
        &mut self,
        answer: &WireResult,
        rendered: &str,
        is_final: bool,
        mode: JobMode,
    ) -> Option<usize> {
        let mut changed = None;
        let mut seen = false;
        for (index, job) in self.jobs.iter_mut().enumerate() {
            if job.outcome.is_some() || !answer.concerns(&job.reference) {
                continue;
            }
            let is_new = is_final || job.rendered.as_deref() != Some(rendered);
            if is_new && !seen {
                changed = Some(index);
            }
            seen = true;
            job.take(answer, rendered);
            if is_final {
                job.outcome = Some(ExitOutcome::of(answer, mode));
            }
        }
        changed
    }

    /// The total outcome: a job without a final answer is unknown.
    pub(super) fn outcome(&self) -> ExitOutcome {
        let outcomes = self.jobs.iter().map(|job| job.outcome.unwrap_or(ExitOutcome::Unknown));
        outcomes.max().unwrap_or(ExitOutcome::Unknown)
    }
}

impl JobTableRow {
    fn take(&mut self, answer: &WireResult, rendered: &str) {
        if let JobOutcome::Job(job) = &answer.outcome {
            self.label = line::visible(&format!("{}/{}", job.source.name, job.external_id)).into_owned();
        }
        self.last = Some(answer.clone());
        rendered.clone_into(self.rendered.get_or_insert_default());
    }

    /// The label of the job: its source and external id once they are known.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The last answer.
    pub(super) const fn last(&self) -> Option<&WireResult> {
        self.last.as_ref()
    }

    /// Whether the final answer was received.
    pub(super) const fn is_over(&self) -> bool {
        self.outcome.is_some()
    }
}
