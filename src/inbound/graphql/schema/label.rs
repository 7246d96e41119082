//! The labels of tracked jobs.

use async_graphql::InputObject;

use crate::inbound::graphql::plan::output::output_object;

output_object! {
    /// A label: a name and a value that clients set on a tracked job.
    #[derive(Clone, Debug, InputObject)]
    #[graphql(input_name = "LabelInput")]
    pub struct Label = "Label" {
        /// The name of the label, 1 to 63 bytes of UTF-8 without control characters.
        Free name: String,
        /// The value of the label, 1 to 63 bytes of UTF-8 without control characters.
        Free value: String,
    }
}
