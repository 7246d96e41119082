//! `jobgate job list`: pages of the jobs that the gateway holds, as columns or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::clock;
use super::columns::{ColumnCells, ColumnLayout};
use super::gateway::{FieldSet, GatewayClient, PAGE_MAX, WireJobPage};
use super::outcome::ExitOutcome;
use super::page_reader::PageReader;
use super::terminal::Terminal;

/// The longest wait for a page unless `--timeout` sets that of the command.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How far a gateway counts.
const COUNT_MAX: u64 = 10_000;

/// What is listed, and how.
pub(super) struct JobListPrinter {
    pub(super) gateway: GatewayClient,
    /// A `JobFilter`.
    pub(super) filter: Value,
    /// A `JobOrder`, or null.
    pub(super) order_by: Value,
    /// The largest number of jobs; all of them if absent.
    pub(super) first: Option<u32>,
    pub(super) json: bool,
    pub(super) coloured: bool,
    pub(super) timeout: Option<Duration>,
    /// Returns a random number from 0 (included) to 1 (excluded).
    pub(super) jitter: fn() -> f64,
}

impl JobListPrinter {
    /// Prints the number of jobs that match.
    pub(super) async fn count(self, terminal: &mut Terminal<'_>) -> anyhow::Result<ExitOutcome> {
        let reader = PageReader::new(self.timeout, PAGE_TIMEOUT, self.jitter);
        let page = reader.first(|| self.page(1, None, true, FieldSet::Shown)).await?;
        let total = page.total.unwrap_or_default();
        if self.json {
            terminal.say(&json!({ "totalCount": total }))?;
        } else {
            terminal.say(&total)?;
        }
        if total >= COUNT_MAX {
            terminal
                .complain(&format!("jobgate: the gateway counts to {COUNT_MAX}; there may be more jobs"))?;
        }
        Ok(ExitOutcome::Success)
    }

    /// Prints the jobs, page by page.
    pub(super) async fn run(self, terminal: &mut Terminal<'_>) -> anyhow::Result<ExitOutcome> {
        let set = if self.json { FieldSet::All } else { FieldSet::Shown };
        let reader = PageReader::new(self.timeout, PAGE_TIMEOUT, self.jitter);
        let (mut printed, mut total, mut after) = (0_u32, None, None::<String>);
        let mut layout = None;
        loop {
            let size = self.first.map_or(PAGE_MAX, |first| (first - printed).min(PAGE_MAX));
            let page = if printed == 0 {
                // counting reads all jobs that match, which a list of all of them does anyway
                reader.first(|| self.page(size, None, self.first.is_some(), set)).await?
            } else {
                let next = || self.page(size, after.as_deref(), false, set);
                reader.next(terminal, next).await?
            };
            total = total.or(page.total);
            printed = printed.saturating_add(u32::try_from(page.edges.len()).unwrap_or(u32::MAX));
            self.print(&page, &mut layout, terminal)?;
            after = page.next;
            let full = self.first.is_some_and(|first| printed >= first);
            if after.is_none() || full || page.edges.is_empty() {
                break;
            }
        }
        self.close(printed, total, after.is_some(), terminal)?;
        Ok(ExitOutcome::Success)
    }

    async fn page(
        &self,
        size: u32,
        after: Option<&str>,
        count: bool,
        set: FieldSet,
    ) -> Result<WireJobPage, super::gateway::GatewayError> {
        self.gateway.job_list((&self.filter, &self.order_by), (size, after), count, set).await
    }

    fn print(
        &self,
        page: &WireJobPage,
        layout: &mut Option<ColumnLayout>,
        terminal: &mut Terminal<'_>,
    ) -> anyhow::Result<()> {
        if self.json {
            return Ok(page.edges.iter().try_for_each(|edge| terminal.say(&edge.sent))?);
        }
        // a person reads ages, a program times
        let now = terminal.columns().map(|_| clock::time_of_day());
        let jobs: Vec<ColumnCells> = page.edges.iter().map(|edge| ColumnCells::of(edge, now)).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        if layout.is_none() {
            let decided = ColumnLayout::of(&jobs, terminal.columns());
            terminal.say(&decided.heading())?;
            *layout = Some(decided);
        }
        if let Some(layout) = layout {
            jobs.iter().try_for_each(|job| terminal.say(&layout.row(job, self.coloured)))?;
        }
        Ok(())
    }

    /// Says how many jobs were printed, except to a program that gets all of them.
    fn close(
        &self,
        printed: u32,
        total: Option<u64>,
        more: bool,
        terminal: &mut Terminal<'_>,
    ) -> anyhow::Result<()> {
        let text = match (printed, more) {
            (_, false) if self.json => return Ok(()),
            (0, _) => "no jobs match".to_owned(),
            (1, false) => "1 job".to_owned(),
            (printed, false) => format!("{printed} jobs"),
            (printed, true) => match total.unwrap_or_default() {
                COUNT_MAX.. => format!("{printed} of {COUNT_MAX} jobs or more; --all lists all"),
                total => format!("{printed} of {total} jobs; --all lists all"),
            },
        };
        Ok(terminal.complain(&text)?)
    }
}
