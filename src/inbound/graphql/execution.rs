//! The execution of admitted operations, and the updates of subscriptions. Not here: the checks of a document, and the
//! bytes of a transport.

pub(super) mod answers;
pub(super) mod delivery_span;
pub mod endpoint;
pub(super) mod response;
mod results;
pub(super) mod shared_updates;
