//! The path of a value in the variables or in an argument, for messages: `variables.refs[3].external`, `jobs.refs[0]`.
//! Borrowed step by step, so that a path costs nothing until it is formatted.

use std::fmt;

use async_graphql::Name;

/// The path to a value.
pub(super) enum ValuePath<'a> {
    /// A variable's value.
    Variable(&'a Name),
    /// The default of a variable in the document.
    Default(&'a Name),
    /// An argument in the document, of a field or of a directive, whose name begins with `@`.
    Argument(&'a str, &'a Name),
    /// A field of an input object.
    Field(&'a Self, &'a Name),
    /// An item of a list.
    Item(&'a Self, usize),
}

impl ValuePath<'_> {
    /// How many steps below the variable it is.
    pub(super) fn depth(&self) -> usize {
        let (mut depth, mut at) = (0, self);
        while let Self::Field(parent, _) | Self::Item(parent, _) = at {
            (depth, at) = (depth + 1, parent);
        }
        depth
    }
}

impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "variables.{name}"),
            Self::Default(name) => write!(f, "the default of ${name}"),
            Self::Argument(of, name) => write!(f, "{of}.{name}"),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
