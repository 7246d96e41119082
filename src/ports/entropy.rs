//! Chance, so that tests can take it away. Not for secrets: those come from the crypto library.

use std::fmt::Debug;

/// Draws numbers for jitter.
pub trait Entropy: Debug + Send + Sync {
    /// A number from 0 (included) to 1 (excluded), evenly.
    fn unit(&self) -> f64;
}
