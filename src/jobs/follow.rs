//! What is followed, and when it is polled: `registry` has the lock, `state` and `schedule` the decisions, with the
//! `watch_requests` of each job, the `poll_queue` and the `source_demand` of each source; `poller` has the loop with its
//! `permits`, `sweep` what replaces polls where an upstream can list changes, and `resume` what a restart
//! restores. How an observation is obtained is in `fetch`; what a client receives is in `watch`.

mod coverage;
mod duration_stats;
mod followed_job;
mod last_snapshot;
mod permits;
mod poll_queue;
mod poller;
mod published;
mod registry;
mod resume;
mod round_robin;
mod schedule;
mod settings;
mod source_demand;
mod source_polls;
mod source_proofs;
mod state;
mod state_counts;
mod sweep;
mod swept_jobs;
mod unfollowed_reads;
mod watch_requests;

pub(super) use permits::{PollPermit, PollPermits};
pub(super) use poller::Poller;
pub(super) use published::PublishedState;
pub(super) use registry::{FollowRegistry, Interest};
pub(super) use resume::Resume;
pub use settings::FollowSettings;
pub use sweep::SweepStatus;
pub(super) use sweep::{SweepStatuses, Sweeper};
