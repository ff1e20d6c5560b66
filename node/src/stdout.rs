//! The one place that writes to the terminal: results to stdout, the last word on a failure to
//! stderr. Everything else is logged.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one line, or several, to stdout.
pub(crate) fn line(text: &dyn Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Says on stderr why the process ends.
pub(crate) fn complain(failure: &dyn Display) {
    // Nobody is left to be told that stderr is closed; the exit code still speaks.
    let _ = writeln!(io::stderr().lock(), "error: {failure}");
}
