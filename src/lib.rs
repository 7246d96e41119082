
pub mod simulator;
