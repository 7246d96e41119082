//! Where jobs and rows are kept: in memory, or in memory and a file behind it.

pub mod embedded;
pub mod memory;
pub(in crate::outbound) mod record;
pub mod rows;
#[cfg(test)]
pub(in crate::outbound) mod testing;
