//! Where jobs and rows are kept.

pub mod memory;
pub mod rows;
