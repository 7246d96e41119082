//! The labels of tracked jobs.

use async_graphql::{InputObject, SimpleObject};

use crate::inbound::graphql::document::limits::field_cost::TypeCosts;

/// What each field costs.
pub(super) const COSTS: [TypeCosts; 1] = [TypeCosts::free("Label", &["name", "value"])];

/// A label: a name and a value that clients set on a tracked job.
#[derive(Clone, Debug, InputObject, SimpleObject)]
#[graphql(input_name = "LabelInput")]
pub struct Label {
    /// The name of the label, 1 to 63 bytes of UTF-8 without control characters.
    pub(super) name: String,
    /// The value of the label, 1 to 63 bytes of UTF-8 without control characters.
    pub(super) value: String,
}
