//! How jobs are printed: plain lines, JSON, or a panel above which the completed jobs are printed. It makes no decisions and does not know the gateway.

use std::io::Result;

use super::clock;
use super::gateway::{WireResult, WireUpdate};
use super::line;
use super::mode::JobMode;
use super::panel::Panel;
use super::style;
use super::summary;
use super::table::{JobTable, JobTableRow};
use super::terminal::{self, Terminal};

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
    /// A panel of the incomplete jobs, and a line for each completed one.
    Panel,
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
    panel: Option<Panel>,
    coloured: bool,
    terminal: &'t mut Terminal<'o>,
}

impl<'t, 'o> Screen<'t, 'o> {
    pub(super) fn new(
        form: OutputForm,
        mode: JobMode,
        table: &JobTable,
        coloured: bool,
        terminal: &'t mut Terminal<'o>,
    ) -> Self {
        let labels = table.jobs().iter().map(JobTableRow::label);
        let panel = (form == OutputForm::Panel).then(|| Panel::new(labels, coloured));
        Self { form, mode, panel, coloured, terminal }
    }

    /// The printed part of an answer: if it is equal, there is nothing new to print.
    pub(super) fn of(&self, item: ScreenItem<'_>) -> String {
        let (answer, is_final) = item.parts();
        match self.form {
            OutputForm::Lines | OutputForm::Panel => line::text(answer, is_final),
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
            OutputForm::Panel if is_final => {
                if let Some(panel) = &mut self.panel {
                    panel.end(index);
                }
                self.line(job, answer, is_final)
            }
            OutputForm::Panel => {
                if let Some(panel) = &mut self.panel {
                    panel.show(index, job.label(), answer);
                }
                Ok(())
            }
        }
    }

    /// Prints the state of an incomplete job, though its result was requested.
    pub(super) fn show_unfinished(&mut self, job: &JobTableRow, last: &WireResult) -> Result<()> {
        match self.form {
            OutputForm::Lines | OutputForm::Panel => self.line(job, last, false),
            OutputForm::Json => self.terminal.say(&last.sent),
        }
    }

    /// Prints a message about the connection.
    pub(super) fn complain(&mut self, text: &str) -> Result<()> {
        self.erase()?;
        self.terminal.complain(&format!("jobgate: {}", line::visible(text)))?;
        self.tick()
    }

    /// Prints how many jobs are in which state, for people only.
    pub(super) fn summarize(&mut self, jobs: &[JobTableRow], seconds: u64) -> Result<()> {
        match self.form {
            OutputForm::Lines | OutputForm::Panel => {
                self.terminal.complain(&summary::of(jobs, seconds, self.coloured))
            }
            OutputForm::Json => Ok(()),
        }
    }

    /// Redraws the panel, if there is one.
    pub(super) fn tick(&mut self) -> Result<()> {
        match &mut self.panel {
            Some(panel) => self.terminal.draw(&panel.draw(clock::time_of_day(), terminal::size())),
            None => Ok(()),
        }
    }

    /// Whether there is a panel.
    pub(super) const fn moves(&self) -> bool {
        self.panel.is_some()
    }

    /// Removes the panel.
    pub(super) fn close(&mut self) -> Result<()> {
        let erased = self.erase();
        self.panel = None;
        erased
    }

    fn erase(&mut self) -> Result<()> {
        match &mut self.panel {
            Some(panel) => self.terminal.draw(&panel.erase(terminal::size().1)),
            None => Ok(()),
        }
    }

    fn line(&mut self, job: &JobTableRow, answer: &WireResult, is_final: bool) -> Result<()> {
        let text = line::with_estimate(answer, is_final);
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let (word, blank) = (style::paint(word, word, self.coloured), if rest.is_empty() { "" } else { " " });
        let now = clock::time_of_day();
        // above a panel, on a narrow terminal, the date would take the room of the name
        let time =
            if self.panel.is_some() { now.strftime("%H:%M:%SZ").to_string() } else { format!("{now:.0}") };
        let line = format!("{time} {} {word}{blank}{rest}", job.label());
        self.erase()?;
        std::iter::once(line).chain(line::timeline(answer)).try_for_each(|line| self.terminal.say(&line))?;
        self.tick()
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
