//! Floor 4, the roads out: what `ports` asks for, done with real parts. The only place that knows `reqwest` and
//! `moka`. Never calls back up into `jobs`, and never sees `inbound`.

pub mod credentials;
pub mod files;
pub mod gateway_client;
pub mod http;
pub mod identity;
pub mod limiter;
pub mod otlp;
pub mod redis;
pub mod source;
pub mod stores;
pub mod system;
#[cfg(test)]
mod testing;
pub mod upstreams;
