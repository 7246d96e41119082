//! A limited number of concurrent requests, or of connections, and its use.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A number of permits of one kind. A clone shares the permits.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    semaphore: Arc<Semaphore>,
    size: usize,
}

impl ConcurrencyLimit {
    /// With this many permits.
    pub fn new(size: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(size)), size }
    }

    /// The semaphore of the permits.
    pub const fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }

    /// The number of permits.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The number of permits in use.
    pub fn taken(&self) -> usize {
        self.size.saturating_sub(self.semaphore.available_permits())
    }

    /// Whether at least this share is in use, in percent.
    pub(in crate::inbound) fn is_over(&self, hundredths: usize) -> bool {
        self.taken().saturating_mul(100) >= self.size.saturating_mul(hundredths)
    }
}

/// Equal if it shares the same permits, not if the number is the same.
impl PartialEq for ConcurrencyLimit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.semaphore, &other.semaphore)
    }
}

impl Eq for ConcurrencyLimit {}
