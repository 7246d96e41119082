//! The list of the upstreams, with the upstream-specific part of a job in typed form: one struct for each upstream. Every
//! field is optional, because the upstream may omit it.

mod common;
mod mindbridge;
mod supermetrics;

#[cfg(test)]
use proptest::strategy::{BoxedStrategy, Strategy};
use serde::Serialize;

pub use self::common::UpstreamDetails;
pub use self::mindbridge::{EntityRef, MindBridgeDetails, UserInfo};
pub use self::supermetrics::{LicenceQueue, QueryField, QueryMeta, QueryResult, SupermetricsDetails};
use super::profile::Profile;

/// Declares [`Upstream`] and [`Details`] from one row for each upstream: the variant, its details, how they are accessed,
/// and its profile.
macro_rules! upstreams {
    ($($(#[$doc:meta])* $variant:ident: $details:ident, $accessor:ident, $profile:path;)+) => {
        /// A kind of upstream API. Its [`Profile`] has everything that the gateway must know to treat it like the others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Upstream {
            $($(#[$doc])* $variant,)+
        }

        impl Upstream {
            /// Every upstream.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What distinguishes this upstream from the others.
            pub const fn profile(self) -> &'static Profile {
                match self {
                    $(Self::$variant => &$profile,)+
                }
            }

            /// The details of a job about which the upstream reports nothing beyond the common fields.
            pub fn no_details(self) -> Details {
                match self {
                    $(Self::$variant => Details::$variant(Box::default()),)+
                }
            }

            /// Arbitrary details of a job.
            #[cfg(test)]
            pub(crate) fn arbitrary_details(self) -> BoxedStrategy<Details> {
                match self {
                    $(Self::$variant => $details::arbitrary().prop_map(Details::from).boxed(),)+
                }
            }
        }

        /// The upstream-specific part of a job. Serialized without the upstream.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Details {
            $($(#[$doc])* $variant(Box<$details>),)+
        }

        impl Details {
            /// The upstream that reports them.
            pub const fn upstream(&self) -> Upstream {
                match self {
                    $(Self::$variant(_) => Upstream::$variant,)+
                }
            }

            /// What they have in common.
            pub fn common(&self) -> &dyn UpstreamDetails {
                match self {
                    $(Self::$variant(details) => &**details,)+
                }
            }

            /// The same, to change it.
            pub fn common_mut(&mut self) -> &mut dyn UpstreamDetails {
                match self {
                    $(Self::$variant(details) => &mut **details,)+
                }
            }

            /// Whether two responses report the same about the job. What changes with every response is no change of the
            /// job.
            pub fn same_report(&self, other: &Self) -> bool {
                match self {
                    $(Self::$variant(one) => other.$accessor().is_some_and(|two| one.same_report(two)),)+
                }
            }

            $(
                /// The details, if they are of this upstream.
                pub const fn $accessor(&self) -> Option<&$details> {
                    if let Self::$variant(details) = self { Some(&**details) } else { None }
                }
            )+
        }

        $(
            impl From<$details> for Details {
                fn from(details: $details) -> Self {
                    Self::$variant(Box::new(details))
                }
            }
        )+
    };
}

upstreams! {
    /// MindBridge async results: analyses, ingestions, exports.
    MindBridge: MindBridgeDetails, as_mindbridge, mindbridge::PROFILE;
    /// Supermetrics query status.
    Supermetrics: SupermetricsDetails, as_supermetrics, supermetrics::PROFILE;
}
