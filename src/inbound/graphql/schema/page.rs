//! Pagination: what all connections share.

use crate::inbound::graphql::plan::output::output_object;

use super::problem::bad_input;

/// The maximum number of entries of a page.
pub const PAGE_MAX: u32 = 100;

output_object! {
    /// Information about pagination in a connection.
    #[derive(Clone, Debug, Default)]
    pub struct PageInfo = "PageInfo" {
        /// Whether there are more items after this page.
        Free has_next_page: bool,
        /// Whether there are items before this page. True if `after` was given, except if rows could not be read.
        Free has_previous_page: bool,
        /// The cursor of the first item of this page. Null if the page is empty.
        Free start_cursor: Option<String>,
        /// The cursor of the last item of this page: an opaque string. Pass it as `after` to read the next page. If the page
        /// is empty, the `after` of the request, which can be null. Null if rows could not be read.
        Free end_cursor: Option<String>,
    }
}

/// Validates the argument `first`.
pub(super) fn page_size(first: i32) -> async_graphql::Result<u32> {
    u32::try_from(first)
        .ok()
        .filter(|first| (1..=PAGE_MAX).contains(first))
        .ok_or_else(|| bad_input(format!("first must be 1 to {PAGE_MAX}; use after to read more pages")))
}
