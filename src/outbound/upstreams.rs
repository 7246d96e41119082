//! The upstreams, one folder each, and the factory that makes a configured source ready.
//!
//! Adding an upstream: (1) a variant in `domain::source::Upstream` and one in `domain::details::Details`; the compiler
//! then lists every table that needs a row. (2) A folder here: `wire.rs` reads their words (strings at the border,
//! every field optional, a wrong type is `None`), `normalize.rs` turns them into ours (total, pure, a table test a
//! line), and the file beside it asks the questions and judges the replies through `outbound::source::Source`, which
//! brings budget, retries, breaker and credential. (3) A row in [`reader`]. Judge the body before the status, never
//! require JSON on an error, and let no upstream text but a failure's reach a client.

mod distinct;
pub mod mindbridge;
mod reason;
pub mod supermetrics;
mod wire;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::source::Source;
pub use super::source::{Account, Means, SourceSettings};
use crate::domain::source::Upstream;
use crate::ports::upstream::{Detail, JobReader, LookError};

/// Turns a panic over one answer into a bad answer. The panic itself is in the log, by the process's hook.
fn contained<T>(normalize: impl FnOnce() -> T) -> Result<T, LookError> {
    catch_unwind(AssertUnwindSafe(normalize))
        .map_err(|_| bad_answer("putting the answer into our words panicked"))
}

/// An answer that cannot be used, and why.
fn bad_answer(text: impl Into<String>) -> LookError {
    LookError::BadAnswer(Detail::new(text))
}

/// Makes a configured source ready to be asked. Nothing is sent yet.
pub fn reader(upstream: Upstream, settings: SourceSettings, means: Means) -> Arc<dyn JobReader> {
    let account = Account::new(&settings, means.tier.as_ref());
    reader_on(upstream, settings, means, account)
}

/// The same on an account of which something may have been used up.
pub fn reader_on(
    upstream: Upstream,
    settings: SourceSettings,
    means: Means,
    account: Account,
) -> Arc<dyn JobReader> {
    let source = Source::new(upstream, settings, means, account);
    match upstream {
        Upstream::MindBridge => Arc::new(mindbridge::MindBridge::new(source)),
        Upstream::Supermetrics => Arc::new(supermetrics::Supermetrics::new(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_over_one_answer_is_a_bad_answer() {
        assert!(matches!(contained(|| panic!("planted")), Err::<(), _>(LookError::BadAnswer(_))));
        assert_eq!(contained(|| 7).unwrap(), 7);
    }
}
