//! How jobs are printed: plain lines, JSON, or progress bars. It makes no decisions and does not know the gateway.

use std::io::Result;

use super::bars::Bars;
use super::clock;
use super::gateway::{WireResult, WireUpdate};
use super::line;
use super::mode::JobMode;
use super::table::{JobTable, JobTableRow};
use super::terminal::Terminal;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
    /// A bar for each incomplete job, and a line for each completed one.
    Bars,
}

/// An item to print: an update of a stream, or an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScreenItem<'a> {
    Update(&'a WireUpdate),
    Answer(&'a WireResult),
}

/// Where jobs are printed.
pub(super) struct Screen<'t, 'o> {
    form: OutputForm,
    mode: JobMode,
    bars: Option<Bars>,
    terminal: &'t mut Terminal<'o>,
}

impl<'t, 'o> Screen<'t, 'o> {
    pub(super) fn new(
        form: OutputForm,
        mode: JobMode,
        table: &JobTable,
        terminal: &'t mut Terminal<'o>,
    ) -> Self {
        let bars = (form == OutputForm::Bars).then(|| Bars::new(table.jobs().iter().map(JobTableRow::label)));
        Self { form, mode, bars, terminal }
    }

    /// The printed part of an answer: if it is equal, there is nothing new to print.
    pub(super) fn of(&self, item: ScreenItem<'_>) -> String {
        let (answer, is_final) = item.parts();
        match self.form {
            OutputForm::Lines | OutputForm::Bars => line::text(answer, is_final),
            OutputForm::Json => {
                // these differ in each answer, also of a job that has not changed
                let mut facts = answer.sent.clone();
                for path in [
                    "/freshness/observedAt",
                    "/freshness/ageMs",
                    "/freshness/nextPollAt",
                    "/retryAfterMs",
                    "/estimate",
                    "/requestId",
                    "/queue",
                ] {
                    if let Some(fact) = facts.pointer_mut(path) {
                        fact.take();
                    }
                }
                format!("{is_final} {facts}")
            }
        }
    }

    /// Prints a change of the job at `index`.
    pub(super) fn show(&mut self, index: usize, job: &JobTableRow, item: ScreenItem<'_>) -> Result<()> {
        let (answer, is_final) = item.parts();
        match self.form {
            OutputForm::Lines => self.line(job, answer, is_final),
            OutputForm::Json => self.terminal.say(item.sent(self.mode)),
            OutputForm::Bars if is_final => {
                if let Some(bars) = &self.bars {
                    bars.end(index);
                }
                self.line(job, answer, is_final)
            }
            OutputForm::Bars => {
                if let Some(bars) = &mut self.bars {
                    bars.show(index, job.label(), answer);
                }
                Ok(())
            }
        }
    }

    /// Prints the state of an incomplete job, though its result was requested.
    pub(super) fn show_unfinished(&mut self, job: &JobTableRow, last: &WireResult) -> Result<()> {
        match self.form {
            OutputForm::Lines | OutputForm::Bars => self.line(job, last, false),
            OutputForm::Json => self.terminal.say(&last.sent),
        }
    }

    /// Prints a message about the connection.
    pub(super) fn complain(&mut self, text: &str) -> Result<()> {
        let Self { bars, terminal, .. } = self;
        let text = format!("jobgate: {}", line::visible(text));
        suspend_bars(bars.as_ref(), || terminal.complain(&text))
    }

    /// Redraws the bars, if there are any.
    pub(super) fn tick(&self) {
        if let Some(bars) = &self.bars {
            bars.tick();
        }
    }

    /// Whether there are bars.
    pub(super) const fn moves(&self) -> bool {
        self.bars.is_some()
    }

    /// Removes the bars.
    pub(super) fn close(&mut self) {
        self.bars = None;
    }

    fn line(&mut self, job: &JobTableRow, answer: &WireResult, is_final: bool) -> Result<()> {
        let Self { bars, terminal, .. } = self;
        let line =
            format!("{:.0} {} {}", clock::time_of_day(), job.label(), line::with_estimate(answer, is_final));
        let mut lines = std::iter::once(line).chain(line::timeline(answer));
        suspend_bars(bars.as_ref(), || lines.try_for_each(|line| terminal.say(&line)))
    }
}

/// Writes with the bars hidden.
fn suspend_bars(bars: Option<&Bars>, write: impl FnOnce() -> Result<()>) -> Result<()> {
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

impl<'a> ScreenItem<'a> {
    /// The answer, and whether it is final.
    pub(super) const fn parts(self) -> (&'a WireResult, bool) {
        match self {
            Self::Update(update) => (&update.answer, update.is_final),
            Self::Answer(answer) => (answer, true),
        }
    }

    const fn sent(self, mode: JobMode) -> &'a serde_json::Value {
        match (self, mode) {
            (Self::Update(update), JobMode::Watch) => &update.sent,
            (Self::Update(update), JobMode::Get | JobMode::Await) => &update.answer.sent,
            (Self::Answer(answer), _) => &answer.sent,
        }
    }
}
