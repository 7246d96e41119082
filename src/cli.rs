//! Layer 6: the command line. Parses the arguments, runs one command, and turns its result into an exit code. The
//! commands are in `cli/`, one file each.

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Environment, FILE_VARIABLE, ValidationErrors};

mod check;
mod config_schema;
mod demo;
mod health;
mod job;
mod key;
mod schema;
mod serve;
mod simulate;
mod terminal;

use terminal::Terminal;

/// The arguments. The doc comments of the commands and of their options are the text of `--help`.
#[derive(Debug, Parser)]
#[command(name = "jobgate", version, about, propagate_version = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT
    Serve(serve::ServeArguments),
    /// Run the gateway with simulated upstreams, without a configuration file
    Demo(demo::DemoArguments),
    /// Run the simulated upstreams only
    Simulate(simulate::SimulateArguments),
    /// Validate a configuration and list all errors
    Check(check::CheckArguments),
    /// Check whether a running gateway is ready for traffic
    Health(health::HealthArguments),
    /// Print the GraphQL schema
    Schema,
    /// Print the JSON Schema of the configuration file
    ConfigSchema,
    /// Create client keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Query jobs of a running gateway
    #[command(subcommand)]
    Job(job::JobCommand),
}

/// The option that every command with a configuration takes.
#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file; `JOBGATE_<SECTION>__<KEY>` overrides it [default: the file in `JOBGATE_CONFIG`, otherwise the
    /// built-in defaults]
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Success.
    Done,
    /// Failure; the reason was printed.
    Failed,
    /// The requested state could not be determined; the reason was printed.
    Unlearned,
    /// The gateway lost a part that it cannot run without. `EX_SOFTWARE` of sysexits.h.
    Broken,
    /// The configuration is invalid; each error was printed. `EX_CONFIG` of sysexits.h.
    BadConfiguration,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Unlearned => 2,
            Exit::Broken => 70,
            Exit::BadConfiguration => 78,
        }
    }
}

/// Runs a command line. Exit codes: 0 success, 1 failure, 2 invalid arguments or unknown state, 70 failure at run time,
/// 78 invalid configuration. `docs/cli.md` defines them for each command.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &Environment) -> ExitCode {
    let attended = io::stdout().is_terminal() && io::stderr().is_terminal();
    // Not locked: a command that runs for long logs to the same stream from other threads.
    let (mut out, mut err) = (io::stdout(), io::stderr());
    ExitCode::from(run_on(args, env, Terminal::new(&mut out, &mut err, attended)))
}

fn run_on(args: impl IntoIterator<Item = OsString>, env: &Environment, mut terminal: Terminal<'_>) -> u8 {
    let ended = match CommandLine::try_parse_from(args) {
        Ok(line) => dispatch(line.command, env, &mut terminal).map(u8::from),
        Err(refused) => {
            let code = u8::try_from(refused.exit_code()).unwrap_or(2);
            let text = refused.render().to_string();
            let written = if refused.use_stderr() {
                terminal.complain(text.trim_end())
            } else {
                terminal.say(text.trim_end())
            };
            written.map(|()| code).map_err(Into::into)
        }
    };
    ended.unwrap_or_else(|error| {
        print_error(&error, &mut terminal);
        Exit::Failed.into()
    })
}

/// Prints why a command failed, unless the reader of the output has gone (`jobgate … | head`).
fn print_error(error: &anyhow::Error, terminal: &mut Terminal<'_>) {
    let gone = |cause: &io::Error| cause.kind() == ErrorKind::BrokenPipe;
    if !error.chain().filter_map(|cause| cause.downcast_ref()).any(gone) {
        terminal.complain(&format!("jobgate: {error:#}")).ok();
    }
}

fn dispatch(command: Command, env: &Environment, terminal: &mut Terminal<'_>) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments, env, terminal),
        Command::Demo(arguments) => demo::run(&arguments, env, terminal),
        Command::Simulate(arguments) => simulate::run(&arguments, terminal),
        Command::Schema => schema::run(terminal),
        Command::Check(arguments) => check::run(&arguments, env, terminal),
        Command::Health(arguments) => health::run(&arguments, terminal),
        Command::ConfigSchema => config_schema::run(terminal),
        Command::Key(command) => key::run(&command, terminal),
        Command::Job(command) => Ok(job::run(&command, env, terminal)),
    }
}

/// The runtime of a command that serves or sends requests.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

impl ConfigFile {
    /// Loads the file, or prints its errors; `None` then.
    fn load_or_refuse(&self, env: &Environment, terminal: &mut Terminal<'_>) -> io::Result<Option<Config>> {
        match self.load(env) {
            Ok(config) => Ok(Some(config)),
            Err(faults) => terminal.refuse(&faults).map(|()| None),
        }
    }

    /// Loads the file that the option or the environment names.
    fn load(&self, env: &Environment) -> Result<Config, ValidationErrors> {
        Config::load(self.named(env).as_deref(), env)
    }

    /// The file that the option or the environment names.
    fn named(&self, env: &Environment) -> Option<PathBuf> {
        let named = || env.get(FILE_VARIABLE).ok().filter(|path| !path.is_empty()).map(PathBuf::from);
        self.path.clone().or_else(named)
    }
}

#[cfg(test)]
mod tests;
