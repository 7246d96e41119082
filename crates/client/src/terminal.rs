//! The output of commands: results to standard output, everything else to standard error. Tests pass buffers.

use std::fmt::{self, Debug, Display, Formatter};
use std::io::{self, ErrorKind, Result, Write};

/// The two streams of a command.
pub struct Terminal<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    attended: bool,
}

impl<'a> Terminal<'a> {
    /// Two streams; `attended` means that a person reads both of them.
    pub fn new(out: &'a mut (dyn Write + Send), err: &'a mut (dyn Write + Send), attended: bool) -> Self {
        Self { out, err, attended }
    }

    /// Whether a person reads both streams, so that a line may change after it was written.
    pub(crate) const fn is_attended(&self) -> bool {
        self.attended
    }

    /// Writes a line of the result.
    pub fn say(&mut self, line: &(impl Display + ?Sized)) -> Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Writes a line about the progress or an error.
    pub fn complain(&mut self, line: &(impl Display + ?Sized)) -> Result<()> {
        writeln!(self.err, "{line}")?;
        self.err.flush()
    }

    /// Writes why a command failed, unless the reader of the output has gone (`jobgate … | head`).
    pub fn print_error(&mut self, error: &anyhow::Error) {
        let gone = |cause: &io::Error| cause.kind() == ErrorKind::BrokenPipe;
        if !error.chain().filter_map(|cause| cause.downcast_ref()).any(gone) {
            self.complain(&format!("jobgate: {error:#}")).ok();
        }
    }
}

impl Debug for Terminal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("attended", &self.attended).finish_non_exhaustive()
    }
}
