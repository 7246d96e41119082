//! Pagination: what all connections share.

use async_graphql::SimpleObject;

use crate::inbound::graphql::document::limits::field_cost::TypeCosts;

use super::problem::bad_input;

/// What each field costs.
pub(super) const COSTS: [TypeCosts; 1] =
    [TypeCosts::free("PageInfo", &["hasNextPage", "hasPreviousPage", "startCursor", "endCursor"])];

/// The maximum number of entries of a page.
pub const PAGE_MAX: u32 = 100;

/// Information about pagination in a connection.
#[derive(Clone, Debug, Default, SimpleObject)]
pub struct PageInfo {
    /// Whether there are more items after this page.
    pub(super) has_next_page: bool,
    /// Whether there are items before this page. True if `after` was given, except if rows could not be read.
    pub(super) has_previous_page: bool,
    /// The cursor of the first item of this page. Null if the page is empty.
    pub(super) start_cursor: Option<String>,
    /// The cursor of the last item of this page: an opaque string. Pass it as `after` to read the next page. If the page
    /// is empty, the `after` of the request, which can be null. Null if rows could not be read.
    pub(super) end_cursor: Option<String>,
}

/// Validates the argument `first`.
pub(super) fn page_size(first: i32) -> async_graphql::Result<u32> {
    u32::try_from(first)
        .ok()
        .filter(|first| (1..=PAGE_MAX).contains(first))
        .ok_or_else(|| bad_input(format!("first must be 1 to {PAGE_MAX}; use after to read more pages")))
}
