//! The execution of prepared operations, and the updates of subscriptions. Not here: checks of a document, and the bytes
//! of a transport.

pub(super) mod answers;
pub(super) mod plan;
pub(super) mod stream_capture;
