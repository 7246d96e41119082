//! Progress bars on standard error: one for each incomplete job, with its counts if the upstream reports them, else a
//! spinner. They have no thread: the caller calls `tick`.

use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::gateway::{JobOutcome, WireResult};
use super::line;

/// The template of a job with counts. Text that does not fit on the line is truncated.
const COUNTED: &str = "{prefix} {elapsed:>4} [{bar:24}] {wide_msg}";
/// The template of a job without.
const SPUN: &str = "{prefix} {elapsed:>4} {spinner} {wide_msg}";

/// The bars of one command; dropping them clears them from the terminal.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    each: Vec<ProgressBar>,
    width: usize,
}

impl Bars {
    /// A spinner for each job, on standard error.
    pub(super) fn new<'a>(labels: impl Iterator<Item = &'a str>) -> Self {
        Self::on(ProgressDrawTarget::stderr(), labels)
    }

    pub(super) fn on<'a>(target: ProgressDrawTarget, labels: impl Iterator<Item = &'a str>) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let labels: Vec<&str> = labels.collect();
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or_default();
        let each = labels.iter().map(|label| {
            let bar = all.add(ProgressBar::new_spinner().with_style(style(SPUN)));
            bar.set_prefix(format!("{label:width$}"));
            bar.set_message("connecting");
            bar
        });
        let each = each.collect();
        Self { all, each, width }
    }

    /// Shows the state of a job.
    pub(super) fn show(&mut self, index: usize, label: &str, answer: &WireResult) {
        let Some(bar) = self.each.get(index) else { return };
        bar.set_prefix(format!("{label:width$}", width = self.width));
        bar.set_message(line::with_estimate(answer, false));
        let progress = match &answer.outcome {
            JobOutcome::Job(job) => job.progress.filter(|progress| progress.total > 0),
            JobOutcome::Problem(_) => None,
        };
        if let Some(progress) = progress {
            bar.set_style(style(COUNTED));
            bar.set_length(progress.total);
            bar.set_position(progress.completed);
        } else {
            bar.set_style(style(SPUN));
            bar.unset_length();
        }
    }

    /// Removes a job's bar.
    pub(super) fn end(&self, index: usize) {
        if let Some(bar) = self.each.get(index) {
            bar.finish_and_clear();
            self.all.remove(bar);
        }
    }

    /// Advances the spinners and the clocks of the incomplete jobs.
    pub(super) fn tick(&self) {
        self.each.iter().filter(|bar| !bar.is_finished()).for_each(ProgressBar::tick);
    }

    /// Writes something else with the bars hidden.
    pub(super) fn suspend(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.all.suspend(write)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // if the terminal is gone, nothing needs to be cleared
        self.all.clear().ok();
    }
}

/// A built-in template; an invalid one would print the library's error in the first test.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.progress_chars("=> ")
}
