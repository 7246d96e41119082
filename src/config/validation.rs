//! The validation errors of a configuration, each with the path of its option. Contains no value, which could be a
//! secret.

use std::collections::BTreeMap;
use std::fmt;

/// Every validation error, one line each, sorted by path. Never empty where it is returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidationErrors {
    messages: BTreeMap<String, String>,
    origins: Vec<(String, String)>,
}

impl ValidationErrors {
    /// Adds an error, unless the option, one above it or one below it already has one.
    pub(super) fn add(&mut self, path: impl AsRef<str>, message: impl Into<String>) {
        let place = self.place(path.as_ref());
        if !self.messages.keys().any(|known| covers(&place, known) || covers(known, &place)) {
            self.messages.insert(place, message.into());
        }
    }

    /// Records the origin of an option outside of the file, so that its errors are reported under that name.
    pub(super) fn set_by(&mut self, path: String, origin: String) {
        self.origins.push((path, origin));
    }

    /// The validation errors as an error, or `value` when there are none.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.messages.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The errors as (path, message), sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.messages.iter().map(|(path, message)| (path.as_str(), message.as_str()))
    }

    fn place(&self, path: &str) -> String {
        let origin = self.origins.iter().rev().find(|(set, _)| covers(set, path));
        printable(origin.map_or(path, |(_, origin)| origin))
    }
}

impl fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (path, message)) in self.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{path}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ValidationErrors {}

/// Whether `below` is `path` or an option inside it.
fn covers(path: &str, below: &str) -> bool {
    below.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A path as one line of bounded length: keys come from a file and may contain anything.
fn printable(path: &str) -> String {
    const LONGEST: usize = 200;
    path.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
