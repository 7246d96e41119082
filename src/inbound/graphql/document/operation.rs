//! Selects the operation of a request in its document, and provides its type and name to other modules. Not here: its
//! selections.

use std::fmt::Write as _;
use std::sync::Arc;

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType,
};
use tracing::Span;

use super::persisted::DocumentHash;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::telemetry::trace;

/// The facts about the operation of a request. Reaches resolvers as request data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationInfo {
    /// Query, mutation or subscription.
    pub kind: OperationType,
    /// Its name in the document, if it has one.
    pub name: Option<Arc<str>>,
}

impl OperationInfo {
    /// The word for its type, for metrics, spans and the log.
    pub(in crate::inbound::graphql) const fn word(&self) -> &'static str {
        match self.kind {
            OperationType::Query => "query",
            OperationType::Mutation => "mutation",
            OperationType::Subscription => "subscription",
        }
    }

    /// Finds the operation of a request, as `GetOperation` of the GraphQL specification does.
    ///
    /// # Errors
    /// Returns an error if none has the name, or no name is given and there are several.
    pub fn select<'a>(
        document: &'a ExecutableDocument,
        name: Option<&str>,
    ) -> Result<(Self, &'a OperationDefinition), HttpRefusal> {
        let unresolved = |message: String| Err(HttpRefusal::new(RefusalKind::OperationUnresolved, message));
        let (name, found) = match (&document.operations, name) {
            (DocumentOperations::Single(only), None) => (None, only),
            (DocumentOperations::Single(_), Some(name)) => {
                return unresolved(format!(
                    "operationName is \"{name}\", but the document's operation has no name"
                ));
            }
            (DocumentOperations::Multiple(all), Some(name)) => match all.get(name) {
                Some(found) => (Some(name.into()), found),
                None => {
                    return unresolved(format!(
                        "the document has no operation \"{name}\"; correct operationName"
                    ));
                }
            },
            (DocumentOperations::Multiple(all), None) => {
                let mut all = all.iter();
                match (all.next(), all.next()) {
                    (Some((name, only)), None) => (Some(name.as_str().into()), only),
                    _ => {
                        return unresolved(
                            "the document has several operations; select one with operationName".to_owned(),
                        );
                    }
                }
            }
        };
        Ok((Self { kind: found.node.ty, name }, &found.node))
    }

    /// The span of the operation; `hash` is that of the text of its document.
    pub(in crate::inbound::graphql) fn span(&self, hash: &DocumentHash) -> Span {
        trace::operation(self.word(), self.name.as_deref(), || {
            hash.iter().fold(String::new(), |mut hex, byte| {
                // writing to a string cannot fail
                write!(hex, "{byte:02x}").ok();
                hex
            })
        })
    }
}
