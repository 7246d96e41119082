//! What the details of all upstreams have in common.

/// What the gateway does with the details of every upstream.
pub trait UpstreamDetails {
    /// The upstream's own change counter, where it has one.
    fn counter(&self) -> Option<i64>;

    /// The upstream's own name for the kind of job, where it has kinds.
    fn kind(&self) -> Option<&str>;

    /// Clears what changes with every response, so that equal jobs have equal representations.
    fn clear_volatile(&mut self);

    /// The number of rows of the result, where the upstream reports it.
    fn total_rows(&self) -> Option<u32>;

    /// The size in bytes: the struct and the texts that an upstream can make long.
    fn weight(&self) -> usize;
}

/// The length of an optional text, in bytes.
pub(super) fn text_len(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}
