//! `jobgate job`: reads jobs from a running gateway, over its public protocol. This file has the arguments, the
//! credential and the exit code; `table` has the state of each job, `screen` prints it, and `request` talks to the
//! gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::exit::Exit;
use super::runtime;
use super::terminal::Terminal;
use crate::config::{Environment, KEY_VARIABLE, URL_VARIABLE};
use crate::domain::duration;
use crate::outbound::gateway_client::{GatewayClient, WireRef};
use crate::outbound::system::{SystemClock, ThreadEntropy};

mod bars;
mod line;
mod mode;
mod outcome;
mod request;
mod screen;
mod table;

use mode::JobMode;
use outcome::ExitOutcome;
use screen::{OutputForm, Screen};
use table::JobTable;

/// The default URL of the gateway.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

const EXIT_CODES: &str = "\
Exit codes: 0 all jobs SUCCEEDED; 1 at least one job is FAILED, CANCELED or EXPIRED; 2 the result of at least one job is \
unknown (no result for the job, gateway unreachable, key rejected, timeout, or invalid arguments). With get, a job that is \
not terminal counts as 0.

The client key is read from --key-file or JOBGATE_KEY, not from the command line, because other users can read command \
lines.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum JobCommand {
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

#[derive(Debug, clap::Args)]
pub(super) struct JobArguments {
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

pub(super) fn run(command: &JobCommand, env: &Environment, terminal: &mut Terminal<'_>) -> Exit {
    let (mode, arguments) = match command {
        JobCommand::Get(arguments) => (JobMode::Get, arguments),
        JobCommand::Watch(arguments) => (JobMode::Watch, arguments),
        JobCommand::Await(arguments) => (JobMode::Await, arguments),
    };
    let outcome = carry_out(mode, arguments, env, terminal).unwrap_or_else(|error| {
        // 1 means that a job failed, and this error proves nothing of the kind
        terminal.print_error(&error);
        ExitOutcome::Unlearned
    });
    outcome.into()
}

fn carry_out(
    mode: JobMode,
    arguments: &JobArguments,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<ExitOutcome> {
    let JobArguments { refs, url, key_file, json, max_staleness, timeout } = arguments;
    let gateway = GatewayClient::new(
        address(url.as_deref(), env)?,
        key(key_file.as_deref(), env)?,
        Arc::new(SystemClock),
    )?;
    let table = JobTable::new(refs.iter().cloned());
    let form = form(*json, mode, terminal.is_attended(), env);
    let screen = Screen::new(form, mode, &table, Arc::new(SystemClock), terminal);
    let job_request = request::JobRequest {
        gateway,
        max_staleness: *max_staleness,
        timeout: *timeout,
        entropy: Arc::new(ThreadEntropy),
    };
    runtime::start()?.block_on(job_request.run(mode, table, screen))
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
fn address(given: Option<&str>, env: &Environment) -> anyhow::Result<Url> {
    let (name, text) = match (given, env.get(URL_VARIABLE).ok().filter(|text| !text.is_empty())) {
        (Some(text), _) => ("--url", text),
        (None, Some(text)) => (URL_VARIABLE, text),
        (None, None) => ("--url", DEFAULT_URL),
    };
    // not repeated: it may contain a password
    Url::parse(text).with_context(|| format!("{name} is not a URL such as {DEFAULT_URL}"))
}

/// The key, if there is one, without the line break that editors add.
fn key(file: Option<&Path>, env: &Environment) -> anyhow::Result<Option<SecretString>> {
    let Some(file) = file else {
        let held = env.get(KEY_VARIABLE).ok().map(str::trim).filter(|key| !key.is_empty());
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
fn form(json: bool, mode: JobMode, attended: bool, env: &Environment) -> OutputForm {
    let plain = env.get("NO_COLOR").is_ok_and(|value| !value.is_empty())
        || env.get("TERM").is_ok_and(|term| term == "dumb");
    match (json, mode) {
        (true, _) => OutputForm::Json,
        (false, JobMode::Watch) if attended && !plain => OutputForm::Bars,
        (false, _) => OutputForm::Lines,
    }
}

#[cfg(test)]
mod tests;
