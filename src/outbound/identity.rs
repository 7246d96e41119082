//! Client keys and signed tokens: the adapters behind [`crate::ports::identity`].

pub mod clients;
pub mod jwt;
pub mod keys;
pub mod registry;
pub mod watch_tokens;

pub use clients::ClientKeys;
pub use registry::LiveIdentity;
