//! One root field of a plan, of whichever operation type: its arguments, and what is selected from its value.

use async_graphql::{Name, PathSegment, Pos, ServerError};

use super::arguments::{DeclaredVariables, RootArguments};
use super::compile::{Compiler, FieldGroup, NotCovered};
use super::selection::{SelectedField, SelectedValue, Selection};

/// A root field. `F` distinguishes the fields of its root type.
#[derive(Debug)]
pub(super) struct PlannedRoot<F> {
    pub(super) field: F,
    pub(super) arguments: RootArguments,
    /// Its response key, and what is selected from its value.
    pub(super) selected: SelectedField,
    key: Name,
    pos: Pos,
}

impl<F> PlannedRoot<F> {
    /// Compiles the field of a root type. `is_first`: the answer begins with it.
    ///
    /// # Errors
    /// Returns an error if only the engine can execute it.
    pub(super) fn compile<'a>(
        compiler: &mut Compiler<'a>,
        parent: &Name,
        group: &FieldGroup<'a>,
        is_first: bool,
        declared: &DeclaredVariables,
        field: impl FnOnce(&str) -> Option<F>,
    ) -> Result<Self, NotCovered> {
        let first = *group.fields.first().ok_or(NotCovered)?;
        let field = field(&first.node.name.node).ok_or(NotCovered)?;
        let types = compiler.types;
        let below = match types.output(parent, &first.node.name.node) {
            Some(of) => compiler.selection(of.innermost(), &group.fields)?,
            // `__typename`
            None => Selection::default(),
        };
        Ok(Self {
            field,
            arguments: RootArguments::of(&first.node, declared, compiler)?,
            selected: SelectedField::new(group.key, is_first, SelectedValue::TypeName, below),
            key: group.key.clone(),
            pos: first.pos,
        })
    }

    /// An error of this field.
    pub(super) fn error(&self, error: async_graphql::Error) -> ServerError {
        let mut error = error.into_server_error(self.pos);
        error.path = vec![PathSegment::Field(self.key.to_string())];
        error
    }
}
