//! Ranges of rows in memory, limited by bytes, for a short time; and in front of a store with a file, the first range
//! of each job for as long as the job is kept.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::embedded::EmbeddedStore;
use crate::domain::observation::Observation;
use crate::ports::BoxFuture;
use crate::ports::rows::{RowCache, RowKey};
use crate::ports::upstream::{RowPage, RowRange};

/// The size of a cell beside its text, in bytes.
const CELL: usize = 16;

/// Rows in memory.
#[derive(Debug)]
pub struct MemoryRows(Cache<RowKey, Arc<RowPage>>);

impl MemoryRows {
    /// An empty cache of at most `max_bytes`, each range kept for `keep`.
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

/// Rows in memory, and the first range of each job in the file of the store.
#[derive(Debug)]
pub struct KeptRows {
    memory: MemoryRows,
    file: Arc<EmbeddedStore>,
}

impl KeptRows {
    /// A cache in front of the file of a store.
    pub const fn new(memory: MemoryRows, file: Arc<EmbeddedStore>) -> Self {
        Self { memory, file }
    }
}

impl RowCache for KeptRows {
    fn get<'a>(&'a self, key: &'a RowKey) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        self.memory.get(key)
    }

    fn put(&self, key: RowKey, page: Arc<RowPage>) -> BoxFuture<'_, ()> {
        self.memory.put(key, page)
    }

    fn keeps(&self) -> bool {
        self.file.keeps_rows()
    }

    fn keep(&self, of: &Observation, range: RowRange, page: &RowPage) {
        if self.keeps() {
            self.file.keep_rows(of, range.first, write(page));
        }
    }

    fn kept<'a>(&'a self, of: &'a Observation, range: RowRange) -> BoxFuture<'a, Option<Arc<RowPage>>> {
        Box::pin(async move {
            let page = read(&self.file.rows(of, range.first).await?)?;
            Some(Arc::new(page))
        })
    }
}

fn write(page: &RowPage) -> Vec<u8> {
    let RowPage { header, rows, total } = page;
    serde_json::to_vec(&(header, rows, total)).unwrap_or_else(|_| unreachable!("cells are JSON already"))
}

fn read(bytes: &[u8]) -> Option<RowPage> {
    let (header, rows, total) = serde_json::from_slice(bytes).ok()?;
    Some(RowPage { header, rows, total })
}

fn weight(page: &RowPage) -> u32 {
    let rows = page.rows.iter().chain(std::iter::once(&page.header));
    let cells: usize = rows.flatten().map(|cell| CELL + cell.get().len()).sum();
    u32::try_from(512 + cells + page.rows.len() * size_of::<Vec<()>>()).unwrap_or(u32::MAX)
}
