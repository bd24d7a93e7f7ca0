//! Printing that survives a closed pipe: `run train --help | head -1` must not panic.

use std::io::{self, ErrorKind, Write};

/// Prints text to stdout as it is.
///
/// # Errors
/// A write that failed for another reason than a reader that went away.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints text to stderr. If that fails there is nobody left to tell.
pub(super) fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
