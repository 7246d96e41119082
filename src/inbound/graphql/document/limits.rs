//! The limits of one document, checked before any resolver runs; its tokens are checked before it is parsed. The
//! engine's own limits are not used: it has none for tokens, root fields or upstream calls. Not here: the
//! cost of each field, which the schema states beside its resolvers.

mod answer;
mod cost;
mod document_limits;
pub(in crate::inbound::graphql) mod field_cost;
mod tokens;
mod walk;

use async_graphql::Variables;
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};

use super::coercion::InputTypes;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

pub use document_limits::DocumentLimits;
use document_limits::exceeded;

impl DocumentLimits {
    /// Counts the tokens of a text that is not parsed yet, and returns their number.
    ///
    /// # Errors
    /// Returns an error if there are too many, or brackets are nested deeper than the parser's stack should bear.
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
    /// Returns an error if a limit is exceeded, or a fragment spreads itself.
    pub fn check_shape(&self, document: &ExecutableDocument) -> Result<(), HttpRefusal> {
        walk::check(document, self)
    }

    /// Computes the upper bound of the upstream calls of an operation. `@skip` and `@include` are treated as
    /// "included". Expects a document that passed [`Self::check_shape`], which bounds the work.
    ///
    /// # Errors
    /// Returns an error if there are more than `max_cost`.
    pub fn check_cost(
        &self,
        types: &InputTypes,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        variables: &Variables,
    ) -> Result<u64, HttpRefusal> {
        let cost = cost::of(types.costs(), document, operation, variables);
        if cost > self.max_cost {
            let refusal =
                exceeded(RefusalKind::DocumentTooComplex, "max_cost", self.max_cost, "upstream calls");
            return Err(refusal.with("cost", cost));
        }
        Ok(cost)
    }

    /// Computes the upper bound of the values in the answer to an operation: duplicates, pages, aliases and levels
    /// multiply. `@skip` and `@include` are treated as "included". Expects a document that passed
    /// [`Self::check_shape`].
    ///
    /// # Errors
    /// Returns an error if there are more than `max_answer_cost`.
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
