//! What the tests share: stand-ins for the ports, and the real server on ephemeral ports.

pub(crate) mod ports;
