//! The stores of jobs and rows: in memory, or in memory with a file behind it.

pub mod embedded;
pub mod memory;
mod recent_reads;
pub(in crate::outbound) mod record;
pub mod rows;
#[cfg(test)]
pub(in crate::outbound) mod testing;
