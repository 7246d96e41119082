//! The output of commands: results to standard output, everything else to standard error. Tests pass buffers.

use std::fmt::Display;
use std::io::{self, ErrorKind, Result, Write};

/// The two streams of a command.
pub(super) struct Terminal<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    attended: bool,
}

impl<'a> Terminal<'a> {
    /// Two streams; `attended` means that a person reads both of them.
    pub(super) fn new(
        out: &'a mut (dyn Write + Send),
        err: &'a mut (dyn Write + Send),
        attended: bool,
    ) -> Self {
        Self { out, err, attended }
    }

    /// Whether a person reads both streams, so that a line may change after it was written.
    pub(super) const fn is_attended(&self) -> bool {
        self.attended
    }

    /// Writes a line of the result.
    pub(super) fn say(&mut self, line: &(impl Display + ?Sized)) -> Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Writes a line about the progress or an error.
    pub(super) fn complain(&mut self, line: &(impl Display + ?Sized)) -> Result<()> {
        writeln!(self.err, "{line}")?;
        self.err.flush()
    }

    /// Writes why a command failed, unless the reader of the output has gone (`jobgate … | head`).
    pub(super) fn print_error(&mut self, error: &anyhow::Error) {
        let gone = |cause: &io::Error| cause.kind() == ErrorKind::BrokenPipe;
        if !error.chain().filter_map(|cause| cause.downcast_ref()).any(gone) {
            self.complain(&format!("jobgate: {error:#}")).ok();
        }
    }
}
