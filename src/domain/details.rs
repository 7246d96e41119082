//! The upstream-specific part of a job, in typed form: one struct for each upstream. Every field is optional, because the
//! upstream may omit it.

mod mindbridge;
mod supermetrics;

use serde::Serialize;

pub use self::mindbridge::{EntityRef, MindBridgeDetails, UserInfo};
pub use self::supermetrics::{LicenceQueue, QueryField, QueryMeta, QueryResult, SupermetricsDetails};
use super::upstream::{Profile, Upstream};

/// The upstream-specific part of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Details {
    /// A MindBridge async result.
    MindBridge(Box<MindBridgeDetails>),
    /// A Supermetrics query.
    Supermetrics(Box<SupermetricsDetails>),
}

/// What the gateway does with the details of every upstream.
pub trait UpstreamDetails {
    /// The upstream's own change counter, where it has one.
    fn counter(&self) -> Option<i64>;

    /// The upstream's own name for the kind of job, where it has kinds.
    fn kind(&self) -> Option<&str>;

    /// Whether two responses report the same about the job. What changes with every response is no change of the job.
    fn same_report(&self, other: &Details) -> bool;

    /// Clears what changes with every response, so that equal jobs have equal representations.
    fn clear_volatile(&mut self);

    /// The number of rows of the result, where the upstream reports it.
    fn total_rows(&self) -> Option<u32>;

    /// The size in bytes: the struct and the texts that an upstream can make long.
    fn weight(&self) -> usize;
}

impl Details {
    /// What they have in common.
    pub fn common(&self) -> &dyn UpstreamDetails {
        match self {
            Self::MindBridge(details) => &**details,
            Self::Supermetrics(details) => &**details,
        }
    }

    /// The same, to change it.
    pub fn common_mut(&mut self) -> &mut dyn UpstreamDetails {
        match self {
            Self::MindBridge(details) => &mut **details,
            Self::Supermetrics(details) => &mut **details,
        }
    }

    /// The upstream that reports them.
    pub const fn upstream(&self) -> Upstream {
        match self {
            Self::MindBridge(_) => Upstream::MindBridge,
            Self::Supermetrics(_) => Upstream::Supermetrics,
        }
    }
}

impl Upstream {
    /// What distinguishes this upstream from the others.
    pub const fn profile(self) -> &'static Profile {
        match self {
            Self::MindBridge => &mindbridge::PROFILE,
            Self::Supermetrics => &supermetrics::PROFILE,
        }
    }
}

/// The length of an optional text, in bytes.
fn text_len(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}
