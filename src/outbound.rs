//! Layer 4, the outbound adapters: implementations of the traits in `ports`. This is the only layer that uses `reqwest`
//! and `moka`. It never calls `jobs` and never imports `inbound`.

pub mod credentials;
pub mod file_watch;
pub mod http;
pub mod identity;
pub mod otlp;
pub mod redis;
pub mod stores;
pub mod system;
#[cfg(test)]
mod testing;
pub mod upstreams;
