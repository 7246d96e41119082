//! The output of commands: results to standard output, everything else to standard error. Tests pass buffers.

use std::fmt::{self, Debug, Display, Formatter};
use std::io::{self, ErrorKind, Result, Write};

/// The two streams of a command.
pub struct Terminal<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    attended: bool,
    columns: Option<usize>,
}

impl<'a> Terminal<'a> {
    /// Two streams; `attended` means that a person reads both of them.
    pub fn new(out: &'a mut (dyn Write + Send), err: &'a mut (dyn Write + Send), attended: bool) -> Self {
        Self { out, err, attended, columns: None }
    }

    /// The same with the number of columns of standard output; none if it is no terminal.
    #[must_use]
    pub fn with_columns(self, columns: Option<usize>) -> Self {
        Self { columns, ..self }
    }

    /// The columns of the standard output of this process, if it is a terminal.
    pub fn columns_of_process() -> Option<usize> {
        let term = console::Term::stdout();
        let (_, columns) = term.size_checked().filter(|_| term.is_term())?;
        Some(columns.into())
    }

    /// The number of columns of standard output; none if it is no terminal, and a program reads it.
    pub(crate) const fn columns(&self) -> Option<usize> {
        self.columns
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

    /// Writes to standard error without a line break.
    pub(crate) fn draw(&mut self, text: &str) -> Result<()> {
        self.err.write_all(text.as_bytes())?;
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

/// The rows and columns of the terminal on standard error at this moment.
pub(crate) fn size() -> (usize, usize) {
    let (rows, columns) = console::Term::stderr().size();
    (rows.into(), columns.into())
}

impl Debug for Terminal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("attended", &self.attended)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
