//! The terminal client: `jobgate job get`, `watch`, `await`, `list` and `rows`.
//!
//! It reads jobs from a running gateway, over the public protocol only, and depends on nothing of the gateway.
//! [`JobCommand`] has the arguments and [`run`] carries them out. `gateway` has the protocol, `follow` reconnects,
//! `request`, `list` and `rows` have the use cases, `table` the state of each job, and `screen` prints it.
//! `docs/cli.md` describes the command.

mod clock;
mod columns;
mod command;
mod csv;
mod duration;
mod follow;
mod gateway;
mod line;
mod list;
mod mode;
mod outcome;
mod page_reader;
mod panel;
mod request;
mod rows;
mod screen;
mod since;
mod style;
mod summary;
mod table;
mod terminal;

pub use self::command::{
    JobArguments, JobCommand, JobListArguments, JobRowsArguments, KEY_VARIABLE, URL_VARIABLE, Variables, run,
};
pub use self::outcome::ExitOutcome;
pub use self::terminal::Terminal;
