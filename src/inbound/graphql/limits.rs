//! What one document may ask for, checked before any resolver runs, and its tokens before it is parsed.
//! The engine's own limits are not relied on: it has none for tokens, root fields or upstream calls.

use async_graphql::Variables;
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};

use super::coerce::InputTypes;
use crate::inbound::error::{HttpRefusal, RefusalKind};

mod answer;
mod cost;
mod tokens;
mod walk;

/// The limits of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Lexical tokens, comments not counted.
    pub max_tokens: usize,
    /// Levels of fields; inside `__schema` and `__type` a bound of their own holds.
    pub max_depth: usize,
    /// Aliases of one operation, with every fragment spread out.
    pub max_aliases: usize,
    /// Fields at the top of one operation, with every fragment spread out.
    pub max_root_fields: usize,
    /// Directives of one operation, with every fragment spread out.
    pub max_directives: usize,
    /// Upstream calls that the operation could cause at most.
    pub max_cost: u64,
    /// Values that the answer could hold at most.
    pub max_answer_cost: u64,
    /// Whether the schema itself may be asked for. The engine alone would answer `null` where that cannot be.
    pub introspection: bool,
}

impl Default for DocumentLimits {
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

impl DocumentLimits {
    /// Counts the tokens of a text that nobody has parsed yet, and gives their number.
    ///
    /// # Errors
    /// When there are too many, or brackets are nested deeper than the parser's stack should bear.
    pub fn check_text(&self, text: &str) -> Result<usize, HttpRefusal> {
        let read = tokens::count(text.as_bytes(), self.max_tokens);
        if read.tokens > self.max_tokens {
            return Err(exceeded(
                RefusalKind::DocumentTooLarge,
                "max_tokens",
                self.max_tokens as u64,
                "tokens",
            ));
        }
        if read.nesting > tokens::MAX_NESTING {
            let limit = tokens::MAX_NESTING as u64;
            return Err(exceeded(RefusalKind::DocumentTooLarge, "max_nesting", limit, "levels of brackets"));
        }
        Ok(read.tokens)
    }

    /// Checks the shape of every operation of a document; independent of variables, so once for each text.
    ///
    /// # Errors
    /// When a limit is exceeded, or a fragment spreads itself.
    pub fn check_shape(&self, document: &ExecutableDocument) -> Result<(), HttpRefusal> {
        walk::check(document, self)
    }

    /// Adds up the upstream calls that an operation could cause at most. `@skip` and `@include` are taken
    /// as "included". Expects a document that passed [`Self::check_shape`], which bounds the work.
    ///
    /// # Errors
    /// When there are more than `max_cost`.
    pub fn check_cost(
        &self,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<u64, HttpRefusal> {
        let cost = cost::of(document, operation, variables);
        if cost > self.max_cost {
            let refusal =
                exceeded(RefusalKind::DocumentTooComplex, "max_cost", self.max_cost, "upstream calls");
            return Err(refusal.with("cost", cost));
        }
        Ok(cost)
    }
}

impl DocumentLimits {
    /// Adds up the values that the answer to an operation could hold at most: duplicates, pages, aliases and levels
    /// multiply. `@skip` and `@include` are taken as "included". Expects a document that passed [`Self::check_shape`].
    ///
    /// # Errors
    /// When there are more than `max_answer_cost`.
    pub fn check_answer_cost(
        &self,
        types: &InputTypes,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<u64, HttpRefusal> {
        let cost = answer::of(types, document, operation, variables);
        if cost > self.max_answer_cost {
            let refusal = exceeded(
                RefusalKind::DocumentTooComplex,
                "max_answer_cost",
                self.max_answer_cost,
                "values in a response",
            );
            return Err(refusal.with("cost", cost));
        }
        Ok(cost)
    }
}

fn exceeded(kind: RefusalKind, name: &'static str, limit: u64, what: &str) -> HttpRefusal {
    let message = format!(
        "the document exceeds {name}: at most {limit} {what} are allowed; request less, or split the request"
    );
    HttpRefusal::new(kind, message).with("limit", name).with("value", limit)
}
