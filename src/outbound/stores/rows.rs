//! Stretches of rows in memory, bounded by bytes, for a short while.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use crate::ports::BoxFuture;
use crate::ports::rows::{RowCache, RowKey};
use crate::ports::upstream::RowPage;

/// What a cell takes beside its text, in bytes.
const CELL: usize = 16;

/// Rows in memory.
#[derive(Debug)]
pub struct MemoryRows(Cache<RowKey, Arc<RowPage>>);

impl MemoryRows {
    /// An empty cache of at most `max_bytes`, each stretch held for `keep`.
    pub fn new(max_bytes: u64, keep: Duration) -> Self {
        let weigh = |_: &RowKey, page: &Arc<RowPage>| weight(page);
        Self(Cache::builder().max_capacity(max_bytes).weigher(weigh).time_to_live(keep).build())
    }
}

impl RowCache for MemoryRows {
    fn get<'a>(&'a self, key: &'a RowKey) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        Box::pin(self.0.get(key))
    }

    fn put(&self, key: RowKey, page: Arc<RowPage>) -> BoxFuture<'_, ()> {
        Box::pin(self.0.insert(key, page))
    }
}

fn weight(page: &RowPage) -> u32 {
    let rows = page.rows.iter().chain(std::iter::once(&page.header));
    let cells: usize = rows.flatten().map(|cell| CELL + cell.get().len()).sum();
    u32::try_from(512 + cells + page.rows.len() * size_of::<Vec<()>>()).unwrap_or(u32::MAX)
}
