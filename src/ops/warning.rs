//! Warnings of what a device does not do as it should: the work goes on another way.

use std::io::Write;

/// Writes `warning: TEXT` to standard error. A reader that went away does not stop the run.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}
