//! What every HTTP request passes through, whichever handler serves it: the layers, the parts of a request that they
//! determine, and the form of a refusal. Not here: handlers, and what is specific to one.

pub mod access_log;
mod cors;
pub mod error;
mod host;
pub mod layers;
pub mod min_rate_body;
pub mod origins;
pub mod peer;
mod request_span;
