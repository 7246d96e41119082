//! What a client receives over time: the updates of the jobs that it named, the terminal state that it waits for, and
//! the feed of all changes. Which jobs are polled for it is decided in `follow`.

mod await_terminal;
mod feed;
mod stream;
mod update;
mod view;

pub(super) use await_terminal::AwaitTerminal;
pub(super) use feed::Feed;
pub use feed::{FeedContent, FeedUpdate};
pub(super) use stream::JobWatch;
pub use update::{UpdateKind, WatchUpdate};
pub(super) use view::View;

pub use super::change_log::FeedCursor;
pub use super::feed_readers::FeedStart;
