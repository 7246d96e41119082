//! The only code that reads the environment: a snapshot that `main` takes and passes down. Tests pass a map.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// The variable with the path of the configuration file, used if the command line has none.
pub const FILE_VARIABLE: &str = "JOBGATE_CONFIG";

/// The environment variables as they were when the process started. Any of them may contain a secret, so none is
/// printed.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Option<SecretString>>,
}

/// Why a variable has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnicode {
    /// It is not set.
    #[error("is not set")]
    Missing,
    /// It contains bytes that are not UTF-8.
    #[error("is not valid UTF-8")]
    NotUnicode,
}

impl Environment {
    /// Takes the snapshot of this process. Variables whose name is not UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok().map(SecretString::from)))
        });
        Self { variables: variables.collect() }
    }

    /// The text of a variable.
    ///
    /// # Errors
    /// When it is not set, or not UTF-8.
    pub fn get(&self, name: &str) -> Result<&str, NotUnicode> {
        let value = self.variables.get(name).ok_or(NotUnicode::Missing)?;
        value.as_ref().map(SecretString::expose_secret).ok_or(NotUnicode::NotUnicode)
    }

    /// The same, with a variable set.
    #[must_use]
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.variables.insert(name.to_owned(), Some(text.to_owned().into()));
        self
    }

    /// The same, without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// The names of all variables that start with `prefix`, sorted.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.variables.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), Some(value.into().into())));
        Self { variables: variables.collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.variables.len())
    }
}
