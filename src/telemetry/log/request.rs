//! The request that log lines belong to. Its id accompanies the futures of the request and the tasks that it starts; no
//! span is needed for it, so that a task keeps no span open.

use http::HeaderValue;
use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static REQUEST: Option<HeaderValue>;
}

/// A request for log lines; none by default. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestScope(Option<HeaderValue>);

impl RequestScope {
    /// The request with this id.
    pub const fn of(id: HeaderValue) -> Self {
        Self(Some(id))
    }

    /// The current request, if there is one.
    pub fn current() -> Self {
        Self(REQUEST.try_with(Clone::clone).ok().flatten())
    }

    /// Runs a future for this request, wherever it is polled.
    pub fn hold<F: Future>(self, future: F) -> TaskLocalFuture<Option<HeaderValue>, F> {
        REQUEST.scope(self.0, future)
    }

    /// Does something for this request.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        REQUEST.sync_scope(self.0.clone(), work)
    }
}

/// The id of the current request.
pub(super) fn current_id() -> Option<String> {
    let text = |id: &Option<HeaderValue>| Some(id.as_ref()?.to_str().ok()?.to_owned());
    REQUEST.try_with(text).ok().flatten()
}
