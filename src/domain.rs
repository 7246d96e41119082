//! Layer 0: what a job is, and how two answers about it compare. Pure: no async, no I/O, no clock.

pub mod budget;
pub mod details;
pub mod duration;
pub mod durations;
pub mod error;
pub mod estimate;
pub mod history;
pub mod id;
pub mod job;
pub mod json_text;
pub mod observation;
pub mod pace;
pub mod principal;
pub mod profile;
pub mod schedule;
pub mod sightings;
pub mod source;
pub mod state;
pub mod sweep;
pub mod upstream;
pub mod viewer;
