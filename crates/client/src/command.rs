//! The command: its arguments, and what of it the environment may give instead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Builder;
use url::Url;

use super::duration;
use super::gateway::{GatewayClient, WireRef};
use super::mode::JobMode;
use super::outcome::ExitOutcome;
use super::request::JobRequest;
use super::screen::{OutputForm, Screen};
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

const EXIT_CODES: &str = "\
Exit codes: 0 all jobs SUCCEEDED; 1 at least one job is FAILED, CANCELED or EXPIRED; 2 the result of at least one job is \
unknown (no result for the job, gateway unreachable, key rejected, timeout, or invalid arguments). With get, a job that is \
not terminal counts as 0.

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
}

/// The arguments of each subcommand.
#[derive(Debug, clap::Args)]
pub struct JobArguments {
    /// Jobs, each as `SOURCE/EXTERNAL_ID` or as a node ID (`id` in the GraphQL schema)
    #[arg(required = true, value_name = "REF", value_parser = reference)]
    refs: Vec<WireRef>,
    /// URL of the gateway, without `/graphql` [default: the URL in `JOBGATE_URL`, otherwise `http://127.0.0.1:8080`]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the client key [default: the key in `JOBGATE_KEY`, otherwise no key is sent]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
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

/// Runs the command, prints the jobs, and prints why it failed if it did.
pub fn run(command: &JobCommand, env: &Variables<'_>, terminal: &mut Terminal<'_>) -> ExitOutcome {
    let (mode, arguments) = match command {
        JobCommand::Get(arguments) => (JobMode::Get, arguments),
        JobCommand::Watch(arguments) => (JobMode::Watch, arguments),
        JobCommand::Await(arguments) => (JobMode::Await, arguments),
    };
    carry_out(mode, arguments, env, terminal).unwrap_or_else(|error| {
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
    let JobArguments { refs, url, key_file, json, max_staleness, timeout } = arguments;
    let gateway = GatewayClient::new(address(url.as_deref(), env)?, key(key_file.as_deref(), env)?)?;
    let table = JobTable::new(refs.iter().cloned());
    let form = form(*json, mode, terminal.is_attended(), env);
    let screen = Screen::new(form, mode, &table, terminal);
    let request =
        JobRequest { gateway, max_staleness: *max_staleness, timeout: *timeout, jitter: fastrand::f64 };
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(request.run(mode, table, screen))
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

/// Moving bars are for people who watch, on a terminal that can rewrite a line, unless they disabled them
/// (<https://no-color.org>).
fn form(json: bool, mode: JobMode, attended: bool, env: &Variables<'_>) -> OutputForm {
    let plain = env("NO_COLOR").is_some_and(|value| !value.is_empty())
        || env("TERM").is_some_and(|term| term == "dumb");
    match (json, mode) {
        (true, _) => OutputForm::Json,
        (false, JobMode::Watch) if attended && !plain => OutputForm::Bars,
        (false, _) => OutputForm::Lines,
    }
}

#[cfg(test)]
mod tests;
