

pub mod domain;
pub mod inbound;
pub mod jobs;
pub mod outbound;
pub mod ports;
pub mod simulator;
pub mod telemetry;
