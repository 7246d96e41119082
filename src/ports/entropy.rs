//! Random numbers, so that tests can replace them. Not for secrets: those come from the crypto library.

use std::fmt::Debug;

/// Generates numbers for jitter.
pub trait Entropy: Debug + Send + Sync {
    /// A number from 0 (included) to 1 (excluded), uniformly distributed.
    fn unit(&self) -> f64;
}
