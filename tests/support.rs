//! What several test files share.

pub(crate) mod balancer;
pub(crate) mod browser;
pub(crate) mod crashes;
pub(crate) mod egress;
pub(crate) mod faults;
pub(crate) mod loops;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod public_listener;
pub(crate) mod redis;
pub(crate) mod replay;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod terminal;
pub(crate) mod tokens;
pub(crate) mod wire;
