//! How jobs are shown: plain lines, JSON, or bars that move. Chooses nothing and knows no gateway.

use std::io::Result;
use std::sync::Arc;

use super::JobMode;
use super::bars::Bars;
use super::line;
use super::table::{JobTable, JobTableRow};
use crate::cli::terminal::Terminal;
use crate::outbound::gateway_client::{WireResult, WireUpdate};
use crate::ports::clock::Clock;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
    /// A bar for each job that has not ended, and a line for each end.
    Bars,
}

/// Something to show: an update of a stream, or an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScreenItem<'a> {
    Update(&'a WireUpdate),
    Answer(&'a WireResult),
}

/// Where jobs are shown.
pub(super) struct Screen<'t, 'o> {
    form: OutputForm,
    mode: JobMode,
    bars: Option<Bars>,
    clock: Arc<dyn Clock>,
    terminal: &'t mut Terminal<'o>,
}

impl<'t, 'o> Screen<'t, 'o> {
    pub(super) fn new(
        form: OutputForm,
        mode: JobMode,
        table: &JobTable,
        clock: Arc<dyn Clock>,
        terminal: &'t mut Terminal<'o>,
    ) -> Self {
        let bars = (form == OutputForm::Bars).then(|| Bars::new(table.jobs().iter().map(JobTableRow::label)));
        Self { form, mode, bars, clock, terminal }
    }

    /// What of an answer is shown: where it is the same, there is nothing new to show.
    pub(super) fn of(&self, item: ScreenItem<'_>) -> String {
        let (answer, is_final) = item.parts();
        match self.form {
            OutputForm::Lines | OutputForm::Bars => line::text(answer, is_final),
            OutputForm::Json => {
                // how old an answer is, and when the next look is due, is different each time
                let mut facts = answer.sent.clone();
                for path in
                    ["/freshness/observedAt", "/freshness/ageMs", "/freshness/nextPollAt", "/retryAfterMs"]
                {
                    if let Some(fact) = facts.pointer_mut(path) {
                        fact.take();
                    }
                }
                format!("{is_final} {facts}")
            }
        }
    }

    /// Shows news of the job at `place`.
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

    /// Shows how a job stands that has not ended, though its end was asked for.
    pub(super) fn show_unfinished(&mut self, job: &JobTableRow, last: &WireResult) -> Result<()> {
        match self.form {
            OutputForm::Lines | OutputForm::Bars => self.line(job, last, false),
            OutputForm::Json => self.terminal.say(&last.sent),
        }
    }

    /// Says something about the asking.
    pub(super) fn complain(&mut self, text: &str) -> Result<()> {
        let Self { bars, terminal, .. } = self;
        let text = format!("jobgate: {}", line::visible(text));
        suspend_bars(bars.as_ref(), || terminal.complain(&text))
    }

    /// Lets what moves move on; a screen without such does nothing.
    pub(super) fn tick(&self) {
        if let Some(bars) = &self.bars {
            bars.tick();
        }
    }

    /// Whether anything moves.
    pub(super) const fn moves(&self) -> bool {
        self.bars.is_some()
    }

    /// Takes away what moves.
    pub(super) fn close(&mut self) {
        self.bars = None;
    }

    fn line(&mut self, job: &JobTableRow, answer: &WireResult, is_final: bool) -> Result<()> {
        let Self { bars, terminal, clock, .. } = self;
        let line = format!("{:.0} {} {}", clock.time_of_day(), job.label(), line::text(answer, is_final));
        suspend_bars(bars.as_ref(), || terminal.say(&line))
    }
}

/// Writes with the bars out of the way.
fn suspend_bars(bars: Option<&Bars>, write: impl FnOnce() -> Result<()>) -> Result<()> {
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

impl<'a> ScreenItem<'a> {
    /// The answer, and whether it is the last.
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
