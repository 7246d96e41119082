//! Floor 4, doors in: what a client reaches over the network. Each door opens on a use case; none
//! reaches an upstream, a store or a port by itself.

pub mod error;
pub mod graphql;
pub mod layers;
