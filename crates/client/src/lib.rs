//! The terminal client: `jobgate job get`, `watch` and `await`.
//!
//! It reads jobs from a running gateway, over the public protocol only, and depends on nothing of the gateway.
//! [`JobCommand`] has the arguments and [`run`] carries them out. `gateway` has the protocol, `follow` reconnects,
//! `request` has the use cases, `table` the state of each job, and `screen` prints it. `docs/cli.md` describes the
//! command.

mod bars;
mod clock;
mod command;
mod duration;
mod follow;
mod gateway;
mod line;
mod mode;
mod outcome;
mod request;
mod screen;
mod table;
mod terminal;

pub use self::command::{JobArguments, JobCommand, KEY_VARIABLE, URL_VARIABLE, Variables, run};
pub use self::outcome::ExitOutcome;
pub use self::terminal::Terminal;
