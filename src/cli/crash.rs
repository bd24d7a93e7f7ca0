//! The edge where a panic becomes one line. A panic is always a fault in the
//! program; a user gets a sentence and exit code 1, never a backtrace.

use crate::experiment::crash;

use super::error::Error;

/// Runs `work` and turns a panic into [`Error::Internal`].
///
/// # Errors
/// Those of `work`, or the panic.
pub fn guard(work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    crash::remember_panics();
    crash::tell_aborts();
    crash::catch(work).unwrap_or_else(|what| Err(Error::Internal(what)))
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    #[test]
    fn a_panic_becomes_one_line() {
        let hook = panic::take_hook();
        let outcome = guard(|| panic!("first\nsecond"));
        panic::set_hook(hook);
        let error = outcome.err().unwrap_or_else(|| panic!("no error"));
        let text = error.to_string();
        assert_eq!(error.code(), 1);
        assert!(text.starts_with("internal error: first second ("), "{text}");
        assert!(text.contains("report") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn an_error_passes_through() {
        let hook = panic::take_hook();
        let outcome = guard(|| Err(Error::Failed(anyhow::anyhow!("no disk"))));
        panic::set_hook(hook);
        assert_eq!(
            outcome.err().map(|e| e.to_string()).as_deref(),
            Some("error: no disk")
        );
    }
}
