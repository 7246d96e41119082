//! Layer 6: the command line. Parses the arguments, runs one command, and turns its result into an exit code. The
//! commands are in `cli/`, one file each; none of them imports this file.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use jobgate_client::{JobCommand, Terminal};

use crate::config::Environment;

mod check;
mod completions;
mod config_file;
mod config_schema;
mod demo;
mod exit;
mod health;
mod key;
mod man;
mod runtime;
mod schema;
mod serve;
mod simulate;

use exit::Exit;

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
    Job(JobCommand),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArguments),
    /// Print the manual page, or write the pages of all commands
    Man(man::ManArguments),
}

/// Runs a command line. Exit codes: 0 success, 1 failure, 2 invalid arguments or unknown state, 70 failure at run time,
/// 78 invalid configuration. `docs/cli.md` defines them for each command.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &Environment) -> ExitCode {
    let attended = io::stdout().is_terminal() && io::stderr().is_terminal();
    // Not locked: a command that runs for long logs to the same stream from other threads.
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let terminal = Terminal::new(&mut out, &mut err, attended).with_columns(Terminal::columns_of_process());
    ExitCode::from(run_on(args, env, terminal))
}

fn run_on(args: impl IntoIterator<Item = OsString>, env: &Environment, mut terminal: Terminal<'_>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = args.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let ended = match CommandLine::try_parse_from(args) {
        Ok(line) => dispatch(line.command, &program, env, &mut terminal).map(u8::from),
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
        terminal.print_error(&error);
        Exit::Failed.into()
    })
}

fn dispatch(
    command: Command,
    program: &str,
    env: &Environment,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(arguments) => serve::run(&arguments, env, terminal),
        Command::Demo(arguments) => demo::run(&arguments, program, env, terminal),
        Command::Simulate(arguments) => simulate::run(&arguments, terminal),
        Command::Schema => schema::run(terminal),
        Command::Check(arguments) => check::run(&arguments, env, terminal),
        Command::Health(arguments) => health::run(&arguments, terminal),
        Command::ConfigSchema => config_schema::run(terminal),
        Command::Key(command) => key::run(&command, terminal),
        Command::Job(command) => {
            Ok(jobgate_client::run(&command, &|name| env.get(name).ok(), terminal).into())
        }
        Command::Completions(arguments) => completions::run(&arguments, CommandLine::command(), terminal),
        Command::Man(arguments) => man::run(&arguments, CommandLine::command(), terminal),
    }
}

#[cfg(test)]
mod tests;
