//! What is known of each job that was asked for, and whether what comes in is news. Nothing is news twice, however often
//! the stream had to be opened, and after a job's end nothing is. Pure: no terminal, no gateway.

use super::Mode;
use super::line;
use super::outcome::Outcome;
use crate::outbound::gateway::{Answer, Ref, Told};

/// All jobs of one command, in the order in which they were named, each once.
#[derive(Debug)]
pub(super) struct Board {
    jobs: Vec<Entry>,
}

/// One job.
#[derive(Debug)]
pub(super) struct Entry {
    reference: Ref,
    label: String,
    last: Option<Answer>,
    shown: Option<String>,
    outcome: Option<Outcome>,
}

impl Board {
    /// A board on which nothing is known yet.
    pub(super) fn new(refs: impl Iterator<Item = Ref>) -> Self {
        let mut jobs: Vec<Entry> = Vec::new();
        for reference in refs {
            if jobs.iter().all(|job| job.reference != reference) {
                let label = match &reference {
                    Ref::Id(id) => id.clone(),
                    Ref::External { source, external_id } => format!("{source}/{external_id}"),
                };
                let label = line::visible(&label).into_owned();
                jobs.push(Entry { reference, label, last: None, shown: None, outcome: None });
            }
        }
        Self { jobs }
    }

    /// The jobs.
    pub(super) fn jobs(&self) -> &[Entry] {
        &self.jobs
    }

    /// The references, in groups of at most `size`.
    pub(super) fn groups(&self, size: usize) -> Vec<Vec<Ref>> {
        self.jobs.chunks(size).map(|jobs| jobs.iter().map(|job| job.reference.clone()).collect()).collect()
    }

    /// Takes in an answer: the place of the job that it is news of, if it is. `shown` is how it would be shown.
    ///
    /// A job that was named in both ways is one job: the first of the two places has the news.
    pub(super) fn take(&mut self, answer: &Answer, shown: &str, is_final: bool, mode: Mode) -> Option<usize> {
        let mut news = None;
        let mut seen = false;
        for (place, job) in self.jobs.iter_mut().enumerate() {
            if job.outcome.is_some() || !answer.concerns(&job.reference) {
                continue;
            }
            let is_new = is_final || job.shown.as_deref() != Some(shown);
            if is_new && !seen {
                news = Some(place);
            }
            seen = true;
            job.take(answer, shown);
            if is_final {
                job.outcome = Some(Outcome::of(answer, mode));
            }
        }
        news
    }

    /// What it all comes to: a job that nothing final is known of could not be learned.
    pub(super) fn outcome(&self) -> Outcome {
        let outcomes = self.jobs.iter().map(|job| job.outcome.unwrap_or(Outcome::Unlearned));
        outcomes.max().unwrap_or(Outcome::Unlearned)
    }
}

impl Entry {
    fn take(&mut self, answer: &Answer, shown: &str) {
        if let Told::Job(job) = &answer.told {
            self.label = line::visible(&format!("{}/{}", job.source.name, job.external_id)).into_owned();
        }
        self.last = Some(answer.clone());
        shown.clone_into(self.shown.get_or_insert_default());
    }

    /// What the job is called: its source and external id once they are known.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The last that was told.
    pub(super) const fn last(&self) -> Option<&Answer> {
        self.last.as_ref()
    }

    /// Whether nothing more is to come.
    pub(super) const fn is_over(&self) -> bool {
        self.outcome.is_some()
    }
}
