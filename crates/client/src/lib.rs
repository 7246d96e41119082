//! The terminal client: `jobgate job get`, `watch`, `await` and `list`.
//!
//! It reads jobs from a running gateway, over the public protocol only, and depends on nothing of the gateway.
//! [`JobCommand`] has the arguments and [`run`] carries them out. `gateway` has the protocol, `follow` reconnects,
//! `request` and `list` have the use cases, `table` the state of each job, and `screen` prints it. `docs/cli.md` describes the
//! command.

mod bars;
mod clock;
mod columns;
mod command;
mod duration;
mod follow;
mod gateway;
mod line;
mod list;
mod mode;
mod outcome;
mod patience;
mod request;
mod screen;
mod since;
mod style;
mod table;
mod terminal;

pub use self::command::{
    JobArguments, JobCommand, JobListArguments, KEY_VARIABLE, URL_VARIABLE, Variables, run,
};
pub use self::outcome::ExitOutcome;
pub use self::terminal::Terminal;
