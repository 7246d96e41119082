//! The limits of a document, and the refusal of one that exceeds a limit.

use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// The limits of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Lexical tokens, comments not counted.
    pub max_tokens: usize,
    /// Levels of fields; `__schema` and `__type` have a limit of their own.
    pub max_depth: usize,
    /// Aliases of one operation, with every fragment spread out.
    pub max_aliases: usize,
    /// Root fields of one operation, with every fragment spread out.
    pub max_root_fields: usize,
    /// Directives of one operation, with every fragment spread out.
    pub max_directives: usize,
    /// The upper bound of the upstream calls of the operation.
    pub max_cost: u64,
    /// The upper bound of the values in the answer.
    pub max_answer_cost: u64,
    /// Whether introspection is allowed. If it is not, the engine alone would return `null`.
    pub introspection: bool,
}

impl Default for DocumentLimits {
    /// The limits of tokens, depth, aliases, root fields and directives have no option. They bound the work before the
    /// cost is known, and do not bound the number of jobs, since one `jobs` field requests many.
    fn default() -> Self {
        Self {
            max_tokens: 2000,
            max_depth: 12,
            max_aliases: 50,
            max_root_fields: 20,
            max_directives: 20,
            max_cost: 1000,
            max_answer_cost: 100_000,
            introspection: true,
        }
    }
}

/// The refusal of a document that exceeds a limit.
pub(super) fn exceeded(kind: RefusalKind, name: &'static str, limit: u64, what: &str) -> HttpRefusal {
    let message = format!(
        "the document exceeds {name}: at most {limit} {what} are allowed; request less, or split the request"
    );
    HttpRefusal::new(kind, message).with("limit", name).with("value", limit)
}
