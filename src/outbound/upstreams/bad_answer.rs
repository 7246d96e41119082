//! An upstream's response that cannot be used.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::ports::upstream::{Detail, FetchError};

/// Converts a panic during the normalization of a response into a bad answer. The panic itself is logged by the
/// process's hook.
pub(super) fn contained<T>(normalize: impl FnOnce() -> T) -> Result<T, FetchError> {
    catch_unwind(AssertUnwindSafe(normalize))
        .map_err(|_| bad_answer("putting the answer into our words panicked"))
}

/// An unusable response, and why.
pub(super) fn bad_answer(text: impl Into<String>) -> FetchError {
    FetchError::BadAnswer(Detail::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contained_panic_becomes_a_bad_answer_error() {
        assert!(matches!(contained(|| panic!("planted")), Err::<(), _>(FetchError::BadAnswer(_))));
        assert_eq!(contained(|| 7).unwrap(), 7);
    }
}
