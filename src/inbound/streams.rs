//! Streams of every transport: who may open one, how long it lasts, and why it ends. Not here: the protocols, which are in
//! `graphql/transport`.

mod end_reason;
mod registry;
mod settings;

pub use end_reason::EndReason;
pub use registry::{
    ConnectionPermit, OperationGuard, StreamCounts, StreamGuard, StreamLimitReached, StreamRegistry,
    Transport,
};
pub use settings::StreamSettings;
