//! The command: its arguments, and what of it the environment may give instead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::clock;
use super::csv::RowForm;
use super::duration;
use super::gateway::{FieldSet, GatewayClient, WireLabel, WireRef};
use super::list::JobListPrinter;
use super::mode::JobMode;
use super::outcome::ExitOutcome;
use super::request::JobRequest;
use super::rows::JobRowsPrinter;
use super::screen::{OutputForm, Screen};
use super::since::Since;
use super::table::JobTable;
use super::terminal::Terminal;

/// The variable with the URL of the gateway.
pub const URL_VARIABLE: &str = "JOBGATE_URL";
/// The variable with the client key.
pub const KEY_VARIABLE: &str = "JOBGATE_KEY";

/// The default URL of the gateway.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Reads an environment variable: `None` if it is not set, or not text.
pub type Variables<'e> = dyn Fn(&str) -> Option<&'e str> + 'e;

const LIST_EXIT_CODES: &str = "\
Exit codes: 0 the jobs were listed; 2 they were not (gateway unreachable, key rejected, timeout, or invalid arguments).

The client key is read from --key-file or JOBGATE_KEY, not from the command line, because other users can read command \
lines.";

const ROWS_EXIT_CODES: &str = "\
CSV is quoted by RFC 4180, with LF as the line break. The first line has the column names. Null is empty, an empty text \
is \"\". Cells are not changed: a text that starts with =, +, - or @ is a formula to a spreadsheet, so import columns \
as text if you do not trust the data.

Exit codes: 0 all rows were printed; 1 the job is FAILED, CANCELED or EXPIRED; 2 rows are missing or the job has not \
completed (no such job, not a Supermetrics query, gateway unreachable, key rejected, timeout, or invalid arguments).";

const EXIT_CODES: &str = "\
Exit codes: 0 all jobs SUCCEEDED; 1 at least one job is FAILED, CANCELED or EXPIRED; 2 the result of at least one job is \
unknown (no result for the job, gateway unreachable, key rejected, timeout, or invalid arguments). With get, a job that is \
not terminal counts as 0. 130 watch or await was stopped by Ctrl-C.

The client key is read from --key-file or JOBGATE_KEY, not from the command line, because other users can read command \
lines.";

/// The subcommands. Their doc comments, and those of the options, are the text of `--help`.
#[derive(Debug, clap::Subcommand)]
pub enum JobCommand {
    /// Print the current state of each job
    #[command(after_help = EXIT_CODES)]
    Get(JobArguments),
    /// Print each change until all jobs are terminal
    #[command(after_help = EXIT_CODES)]
    Watch(JobArguments),
    /// Wait until all jobs are terminal and print the result of each
    #[command(after_help = EXIT_CODES)]
    Await(JobArguments),
    /// List the jobs that the gateway has stored
    #[command(after_help = LIST_EXIT_CODES)]
    List(JobListArguments),
    /// Print all rows of a Supermetrics query that succeeded
    #[command(after_help = ROWS_EXIT_CODES)]
    Rows(JobRowsArguments),
}

/// The gateway that a command reads from, and the key for it.
#[derive(Debug, clap::Args)]
struct GatewayArguments {
    /// URL of the gateway, without `/graphql` [default: the URL in `JOBGATE_URL`, otherwise `http://127.0.0.1:8080`]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the client key [default: the key in `JOBGATE_KEY`, otherwise no key is sent]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// The arguments of the commands about given jobs.
#[derive(Debug, clap::Args)]
pub struct JobArguments {
    /// Jobs, each as `SOURCE/EXTERNAL_ID` or as a node ID (`id` in the GraphQL schema)
    #[arg(required = true, value_name = "REF", value_parser = reference)]
    refs: Vec<WireRef>,
    #[command(flatten)]
    gateway: GatewayArguments,
    /// Print one JSON object per line: a `JobUpdate` of the GraphQL schema with watch, otherwise a `JobResult`
    #[arg(long)]
    json: bool,
    /// Maximum age of the state of a job that is not terminal, such as 5s [default: set by the gateway]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    max_staleness: Option<Duration>,
    /// Maximum time of the command, such as 30s or 10m [default: 30s for get, none for watch and await]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// The arguments of `jobgate job list`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct JobListArguments {
    /// Only jobs of this source. Can be repeated, like --state, --kind and --origin: one of the values must match
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Only jobs in this state
    #[arg(long, value_enum, ignore_case = true)]
    state: Vec<ListedState>,
    /// Only jobs of this kind, such as `ANALYSIS_RUN`
    #[arg(long)]
    kind: Vec<String>,
    /// Only tracked jobs with this label. Can be repeated: all of them must match
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<WireLabel>,
    /// Only jobs that the gateway knows in this way
    #[arg(long, value_enum, ignore_case = true)]
    origin: Vec<ListedOrigin>,
    /// Only jobs that contain this text in the external ID, kind, failure or the value of a label; case is ignored
    #[arg(long)]
    text: Option<String>,
    /// Only jobs that changed at or after this time: `2026-11-21T19:10:00Z`, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    updated_since: Option<Since>,
    /// What to order by, the latest first [default: updated; with --all, by source and external ID]
    #[arg(long, value_enum)]
    order: Option<ListOrder>,
    /// Reverse the order
    #[arg(long)]
    asc: bool,
    /// Maximum number of jobs to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    first: u32,
    /// List all jobs
    #[arg(long, conflicts_with = "first")]
    all: bool,
    /// Print one JSON object per line, a `JobEdge` of the GraphQL schema with all fields of its job except rows
    #[arg(long)]
    json: bool,
    /// Print only the number of jobs that match, which is counted to 10,000
    #[arg(long, conflicts_with_all = ["first", "all", "order", "asc"])]
    count: bool,
    #[command(flatten)]
    gateway: GatewayArguments,
    /// Maximum time of the command, such as 30s or 10m [default: 30s for each page of 100 jobs]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// The arguments of `jobgate job rows`.
#[derive(Debug, clap::Args)]
pub struct JobRowsArguments {
    /// Job, as `SOURCE/EXTERNAL_ID` or as a node ID (`id` in the GraphQL schema)
    #[arg(value_name = "REF", value_parser = reference)]
    of: WireRef,
    /// Print comma-separated values; the default
    #[arg(long)]
    csv: bool,
    /// Print one JSON array per line: first the column names, then the cells of each row
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArguments,
    /// Maximum time of the command, such as 30s or 10m [default: 1m for each page of 100 rows]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// The states by which a list can be filtered: `JobState` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum ListedState {
    Queued,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Expired,
    Unknown,
}

/// The origins by which a list can be filtered: `JobOrigin` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum ListedOrigin {
    Tracked,
    Discovered,
    Requested,
}

/// The orders of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListOrder {
    Updated,
    Created,
    State,
}

impl ListOrder {
    /// The `JobOrderField`.
    const fn field(self) -> &'static str {
        match self {
            Self::Updated => "UPDATED_AT",
            Self::Created => "CREATED_AT",
            Self::State => "STATE",
        }
    }
}

impl GatewayArguments {
    fn client(&self, env: &Variables<'_>) -> anyhow::Result<GatewayClient> {
        let Self { url, key_file } = self;
        Ok(GatewayClient::new(address(url.as_deref(), env)?, key(key_file.as_deref(), env)?)?)
    }
}

impl JobListArguments {
    /// The `JobFilter`.
    fn filter(&self) -> Value {
        let names = |values: Vec<String>| if values.is_empty() { Value::Null } else { json!(values) };
        let labels: Vec<Value> =
            self.label.iter().map(|label| json!({ "name": label.name, "value": label.value })).collect();
        json!({
            "sources": names(self.source.clone()),
            "states": names(self.state.iter().map(spelling).collect()),
            "kinds": names(self.kind.clone()),
            "labels": if labels.is_empty() { Value::Null } else { labels.into() },
            "origins": names(self.origin.iter().map(spelling).collect()),
            "text": self.text,
            "updatedSince": self.updated_since.map(|since| since.to_date_time(clock::time_of_day())),
        })
    }

    /// The `JobOrder`, or null.
    ///
    /// A job that changes while pages ordered by time are read moves to a page that was read already. So a list of all
    /// jobs has the order that changes nothing, unless another one is requested.
    fn order_by(&self) -> Value {
        let given = self.order.or_else(|| (!self.all || self.asc).then_some(ListOrder::Updated));
        let direction = if self.asc { "ASC" } else { "DESC" };
        given.map_or(Value::Null, |order| json!({ "field": order.field(), "direction": direction }))
    }
}

/// Runs the command, prints the jobs, and prints why it failed if it did.
pub fn run(command: &JobCommand, env: &Variables<'_>, terminal: &mut Terminal<'_>) -> ExitOutcome {
    let ended = match command {
        JobCommand::Get(arguments) => carry_out(JobMode::Get, arguments, env, terminal),
        JobCommand::Watch(arguments) => carry_out(JobMode::Watch, arguments, env, terminal),
        JobCommand::Await(arguments) => carry_out(JobMode::Await, arguments, env, terminal),
        JobCommand::List(arguments) => list(arguments, env, terminal),
        JobCommand::Rows(arguments) => rows(arguments, env, terminal),
    };
    ended.unwrap_or_else(|error| {
        // a failure means that a job failed, and this error proves nothing of the kind
        terminal.print_error(&error);
        ExitOutcome::Unknown
    })
}

fn carry_out(
    mode: JobMode,
    arguments: &JobArguments,
    env: &Variables<'_>,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<ExitOutcome> {
    let JobArguments { refs, gateway, json, max_staleness, timeout } = arguments;
    let gateway = gateway.client(env)?;
    let table = JobTable::new(refs.iter().cloned());
    let form = form(*json, mode, terminal.is_attended(), env);
    let coloured = terminal.is_attended() && is_coloured(env);
    let screen = Screen::new(form, mode, &table, coloured, terminal);
    let set = if *json { FieldSet::All } else { FieldSet::Shown };
    let request =
        JobRequest { gateway, max_staleness: *max_staleness, timeout: *timeout, set, jitter: fastrand::f64 };
    runtime()?.block_on(request.run(mode, table, screen))
}

fn list(
    arguments: &JobListArguments,
    env: &Variables<'_>,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<ExitOutcome> {
    let request = JobListPrinter {
        gateway: arguments.gateway.client(env)?,
        filter: arguments.filter(),
        order_by: arguments.order_by(),
        first: (!arguments.all).then_some(arguments.first),
        json: arguments.json,
        coloured: terminal.columns().is_some() && is_coloured(env),
        timeout: arguments.timeout,
        jitter: fastrand::f64,
    };
    let runtime = runtime()?;
    if arguments.count {
        return runtime.block_on(request.count(terminal));
    }
    runtime.block_on(request.run(terminal))
}

fn rows(
    arguments: &JobRowsArguments,
    env: &Variables<'_>,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<ExitOutcome> {
    // --csv names the default
    let JobRowsArguments { of, csv: _, json, gateway, timeout } = arguments;
    let request = JobRowsPrinter {
        gateway: gateway.client(env)?,
        of: of.clone(),
        form: if *json { RowForm::Json } else { RowForm::Csv },
        timeout: *timeout,
        jitter: fastrand::f64,
    };
    runtime()?.block_on(request.run(terminal))
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// The name of a value as the schema spells it.
fn spelling(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Parses a label.
fn label(text: &str) -> Result<WireLabel, &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok(WireLabel { name: name.to_owned(), value: value.to_owned() })
}

/// Parses a reference. Neither node IDs nor external ids contain a `/`.
fn reference(text: &str) -> Result<WireRef, &'static str> {
    match text.split_once('/') {
        _ if text.is_empty() => Err("is empty; a job is SOURCE/EXTERNAL_ID or a node ID"),
        None => Ok(WireRef::Id(text.to_owned())),
        Some((source, external_id)) if source.is_empty() || external_id.is_empty() => {
            Err("has an empty part; a job is SOURCE/EXTERNAL_ID or a node ID")
        }
        Some((source, external_id)) => {
            Ok(WireRef::External { source: source.to_owned(), external_id: external_id.to_owned() })
        }
    }
}

/// The given URL, or that of the environment, or the default.
fn address(given: Option<&str>, env: &Variables<'_>) -> anyhow::Result<Url> {
    let (name, text) = match (given, env(URL_VARIABLE).filter(|text| !text.is_empty())) {
        (Some(text), _) => ("--url", text),
        (None, Some(text)) => (URL_VARIABLE, text),
        (None, None) => ("--url", DEFAULT_URL),
    };
    // not repeated: it may contain a password
    Url::parse(text).with_context(|| format!("{name} is not a URL such as {DEFAULT_URL}"))
}

/// The key, if there is one, without the line break that editors add.
fn key(file: Option<&Path>, env: &Variables<'_>) -> anyhow::Result<Option<SecretString>> {
    let Some(file) = file else {
        let held = env(KEY_VARIABLE).map(str::trim).filter(|key| !key.is_empty());
        return Ok(held.map(SecretString::from));
    };
    let text = std::fs::read_to_string(file).map(SecretString::from);
    let text = text.with_context(|| format!("--key-file {} cannot be read", file.display()))?;
    let key = text.expose_secret().trim();
    anyhow::ensure!(!key.is_empty(), "--key-file {} is empty", file.display());
    Ok(Some(SecretString::from(key)))
}

/// Whether colours may be used on a terminal (<https://no-color.org>).
fn is_coloured(env: &Variables<'_>) -> bool {
    env("NO_COLOR").is_none_or(str::is_empty) && env("TERM").is_none_or(|term| term != "dumb")
}

/// A panel is for people who watch, on a terminal that can rewrite a line.
fn form(json: bool, mode: JobMode, attended: bool, env: &Variables<'_>) -> OutputForm {
    let dumb = env("TERM").is_some_and(|term| term == "dumb");
    match (json, mode) {
        (true, _) => OutputForm::Json,
        (false, JobMode::Watch) if attended && !dumb => OutputForm::Panel,
        (false, _) => OutputForm::Lines,
    }
}

#[cfg(test)]
mod tests;
