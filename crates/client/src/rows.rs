//! `jobgate job rows`: all rows of a query that succeeded, page by page.

use std::time::Duration;

use serde_json::value::RawValue;

use super::csv::{self, RowForm};
use super::gateway::{GatewayClient, GatewayError, JobOutcome, WireRef, WireResult, WireRowPage, WireRows};
use super::line;
use super::outcome::ExitOutcome;
use super::page_reader::PageReader;
use super::terminal::Terminal;

/// The longest wait for a page unless `--timeout` sets that of the command.
const PAGE_TIMEOUT: Duration = Duration::from_mins(1);

/// Whose rows are printed, and how.
pub(super) struct JobRowsPrinter {
    pub(super) gateway: GatewayClient,
    pub(super) of: WireRef,
    pub(super) form: RowForm,
    pub(super) timeout: Option<Duration>,
    /// Returns a random number from 0 (included) to 1 (excluded).
    pub(super) jitter: fn() -> f64,
}

/// What was printed so far.
#[derive(Debug, Default)]
struct RowsPrinted {
    /// The run of the job and its column names, after the first page.
    begun: Option<(Option<String>, Vec<String>)>,
    rows: u64,
    /// The cursor of the last row.
    after: Option<String>,
}

impl JobRowsPrinter {
    /// Prints the rows, and an error if some of them are missing.
    pub(super) async fn run(self, terminal: &mut Terminal<'_>) -> anyhow::Result<ExitOutcome> {
        let reader = PageReader::new(self.timeout, PAGE_TIMEOUT, self.jitter);
        let mut printed = RowsPrinted::default();
        loop {
            let read = if printed.begun.is_none() {
                reader.first(|| self.page(None)).await
            } else {
                reader.next(terminal, || self.page(printed.after.as_deref())).await
            };
            let read = read.map_err(|error| match printed.rows {
                0 => error,
                rows => error.context(format!("rows are missing after the first {rows}")),
            })?;
            let Some(page) = read.page else { return without_rows(&read.answer, terminal) };
            printed.check(read.run, &page)?;
            self.print(&page, &mut printed, terminal)?;
            match (&page.problem, page.page_info.has_next_page) {
                (Some(problem), _) if !problem.retryable => {
                    let why = GatewayError::of_problem(problem);
                    let context = format!("rows are missing after the first {}", printed.rows);
                    return Err(anyhow::Error::from(why).context(context));
                }
                (None, false) => return Ok(ExitOutcome::Success),
                (Some(_), _) | (None, true) => {}
            }
        }
    }

    /// A page. One without rows but with a problem is an error, which may pass.
    async fn page(&self, after: Option<&str>) -> Result<WireRows, GatewayError> {
        let read = self.gateway.rows(&self.of, after).await?;
        match &read.page {
            Some(WireRowPage { problem: Some(problem), nodes, .. }) if nodes.is_empty() => {
                Err(GatewayError::of_problem(problem))
            }
            Some(WireRowPage { page_info, nodes, .. })
                if page_info.has_next_page && (nodes.is_empty() || page_info.end_cursor.is_none()) =>
            {
                Err(GatewayError::lasting(
                    "the response has no row and no cursor, but says that more rows follow",
                ))
            }
            Some(_) | None => Ok(read),
        }
    }

    fn print(
        &self,
        page: &WireRowPage,
        printed: &mut RowsPrinted,
        terminal: &mut Terminal<'_>,
    ) -> anyhow::Result<()> {
        let header = (printed.rows == 0 && printed.after.is_none()).then_some(page.header.as_slice());
        let rows = page.nodes.iter().map(|row| row.cells.as_slice());
        let lines: Vec<String> =
            header.into_iter().chain(rows).map(|cells| csv::line(self.form, cells)).collect();
        if !lines.is_empty() {
            let lines = lines.join("\n");
            // a terminal obeys control characters; a file or a pipe gets the values as they are
            if terminal.columns().is_some() {
                lines.split('\n').try_for_each(|one| terminal.say(&line::visible(one)))?;
            } else {
                terminal.say(&lines)?;
            }
        }
        printed.rows += page.nodes.len() as u64;
        printed.after = page.page_info.end_cursor.clone().or_else(|| printed.after.take());
        Ok(())
    }
}

impl RowsPrinted {
    /// Whether the page continues the ones before: a query that runs again has other rows.
    fn check(&mut self, run: Option<String>, page: &WireRowPage) -> Result<(), GatewayError> {
        let header = page.header.iter().map(|cell| RawValue::get(cell).to_owned()).collect();
        let this = (run, header);
        match &self.begun {
            Some(begun) if *begun != this => Err(GatewayError::lasting(
                "the query ran again while its rows were read; read them again from the start",
            )),
            Some(_) => Ok(()),
            None => {
                self.begun = Some(this);
                Ok(())
            }
        }
    }
}

/// Says why a job has no rows.
fn without_rows(answer: &WireResult, terminal: &mut Terminal<'_>) -> anyhow::Result<ExitOutcome> {
    let (text, outcome) = match &answer.outcome {
        JobOutcome::Problem(problem) => {
            (format!("{}: {}", problem.code, problem.message), ExitOutcome::Unknown)
        }
        JobOutcome::Job(job) => {
            let name = format!("{}/{}", job.source.name, job.external_id);
            let state = &job.state;
            match (answer.sent.get("rows"), job.is_terminal) {
                (None, _) => (
                    format!("{name} is not a Supermetrics query; only those have rows"),
                    ExitOutcome::Unknown,
                ),
                (Some(_), true) if state != "SUCCEEDED" => {
                    (format!("{name} has no rows: {}", line::text(answer, true)), ExitOutcome::Failure)
                }
                (Some(_), _) => (
                    format!("{name} is {state}: it has rows when it has SUCCEEDED; see `jobgate job await`"),
                    ExitOutcome::Unknown,
                ),
            }
        }
    };
    terminal.complain(&line::visible(&format!("jobgate: {text}")))?;
    Ok(outcome)
}
