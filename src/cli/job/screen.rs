//! How jobs are shown: plain lines, JSON, or bars that move. Chooses nothing and knows no gateway.

use std::io::Result;
use std::sync::Arc;

use super::Mode;
use super::bars::Bars;
use super::board::{Board, Entry};
use super::line;
use crate::cli::terminal::Terminal;
use crate::outbound::gateway::{Answer, Update};
use crate::ports::clock::Clock;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
    /// A bar for each job that has not ended, and a line for each end.
    Bars,
}

/// Something to show: an update of a stream, or an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'a> {
    Update(&'a Update),
    Answer(&'a Answer),
}

/// Where jobs are shown.
pub(super) struct Screen<'t, 'o> {
    form: Form,
    mode: Mode,
    bars: Option<Bars>,
    clock: Arc<dyn Clock>,
    terminal: &'t mut Terminal<'o>,
}

impl<'t, 'o> Screen<'t, 'o> {
    pub(super) fn new(
        form: Form,
        mode: Mode,
        board: &Board,
        clock: Arc<dyn Clock>,
        terminal: &'t mut Terminal<'o>,
    ) -> Self {
        let bars = (form == Form::Bars).then(|| Bars::new(board.jobs().iter().map(Entry::label)));
        Self { form, mode, bars, clock, terminal }
    }

    /// What of an answer is shown: where it is the same, there is nothing new to show.
    pub(super) fn of(&self, shown: Shown<'_>) -> String {
        let (answer, is_final) = shown.parts();
        match self.form {
            Form::Lines | Form::Bars => line::text(answer, is_final),
            Form::Json => {
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
    pub(super) fn show(&mut self, place: usize, job: &Entry, shown: Shown<'_>) -> Result<()> {
        let (answer, is_final) = shown.parts();
        match self.form {
            Form::Lines => self.line(job, answer, is_final),
            Form::Json => self.terminal.say(shown.sent(self.mode)),
            Form::Bars if is_final => {
                if let Some(bars) = &self.bars {
                    bars.end(place);
                }
                self.line(job, answer, is_final)
            }
            Form::Bars => {
                if let Some(bars) = &mut self.bars {
                    bars.show(place, job.label(), answer);
                }
                Ok(())
            }
        }
    }

    /// Shows how a job stands that has not ended, though its end was asked for.
    pub(super) fn show_unfinished(&mut self, job: &Entry, last: &Answer) -> Result<()> {
        match self.form {
            Form::Lines | Form::Bars => self.line(job, last, false),
            Form::Json => self.terminal.say(&last.sent),
        }
    }

    /// Says something about the asking.
    pub(super) fn complain(&mut self, text: &str) -> Result<()> {
        let Self { bars, terminal, .. } = self;
        let text = format!("jobgate: {}", line::visible(text));
        aside(bars.as_ref(), || terminal.complain(&text))
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

    fn line(&mut self, job: &Entry, answer: &Answer, is_final: bool) -> Result<()> {
        let Self { bars, terminal, clock, .. } = self;
        let line = format!("{:.0} {} {}", clock.time_of_day(), job.label(), line::text(answer, is_final));
        aside(bars.as_ref(), || terminal.say(&line))
    }
}

/// Writes with the bars out of the way.
fn aside(bars: Option<&Bars>, write: impl FnOnce() -> Result<()>) -> Result<()> {
    match bars {
        Some(bars) => bars.aside(write),
        None => write(),
    }
}

impl<'a> Shown<'a> {
    /// The answer, and whether it is the last.
    pub(super) const fn parts(self) -> (&'a Answer, bool) {
        match self {
            Self::Update(update) => (&update.answer, update.is_final),
            Self::Answer(answer) => (answer, true),
        }
    }

    const fn sent(self, mode: Mode) -> &'a serde_json::Value {
        match (self, mode) {
            (Self::Update(update), Mode::Watch) => &update.sent,
            (Self::Update(update), Mode::Get | Mode::Await) => &update.answer.sent,
            (Self::Answer(answer), _) => &answer.sent,
        }
    }
}
