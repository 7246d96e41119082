//! The upstream-specific part of a job, in typed form: one struct for each upstream. Every field is optional, because the
//! upstream may omit it.

mod common;
mod mindbridge;
mod supermetrics;

use serde::Serialize;

pub use self::common::UpstreamDetails;
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

    /// Whether two responses report the same about the job. What changes with every response is no change of the job.
    pub fn same_report(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MindBridge(one), Self::MindBridge(two)) => one.same_report(two),
            (Self::Supermetrics(one), Self::Supermetrics(two)) => one.same_report(two),
            (Self::MindBridge(_) | Self::Supermetrics(_), _) => false,
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
