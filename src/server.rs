//! Layer 5, the composition root: from a valid configuration to a running gateway, and to its graceful shutdown.

pub mod build;
mod explorer;
mod handles;
pub mod lifecycle;
pub mod listeners;
pub mod reload;
mod settings;
mod sources;
pub mod stores;
pub mod telemetry;
pub mod tls;
