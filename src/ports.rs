//! Layer 1: the traits for the outside world. `outbound` implements them; `jobs` uses nothing else.

pub mod clock;
pub mod credentials;
pub mod entropy;
pub mod feed;
pub mod fetch_error;
pub mod identity;
pub mod leases;
pub mod ledger;
pub mod listing;
pub mod rows;
pub mod shared_store;
pub mod spawner;
pub mod store;
pub mod upstream;

/// A boxed future, as every asynchronous port method returns it: ports are chosen by configuration at run time.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
