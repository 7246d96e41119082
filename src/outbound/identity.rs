//! Client keys, and who holds which: the adapter behind [`crate::ports::identity`].

pub mod clients;
pub mod keys;
pub mod watch_tokens;

pub use clients::ClientKeys;
