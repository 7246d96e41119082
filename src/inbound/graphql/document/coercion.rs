//! Validates that the variables of a request coerce to their declared types, before anything executes (GraphQL,
//! "Coercing Variable Values"). The engine finds most errors only when a resolver reads the value, after earlier
//! mutations have run. Values in the document and the positions of variables are validated in `position`, since the
//! engine's validation misses some errors of both. Not here: how much a document may request (`limits`).

mod input;
mod input_types;
mod output;
mod path;
mod position;
mod value;
mod variables;

pub use input::TextScalar;
pub use input_types::InputTypes;
pub(in crate::inbound::graphql) use output::OutputField;

#[cfg(test)]
mod tests;
