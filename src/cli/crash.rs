//! The edge where a panic becomes one line. A panic is always a fault in the
//! program; a user gets a sentence and exit code 1, never a backtrace.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use super::error::Error;

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Runs `work` and turns a panic into [`Error::Internal`].
///
/// The hook only remembers: a panic that is caught and handled further down (a
/// device that fails, say) prints nothing.
///
/// # Errors
/// Those of `work`, or the panic.
pub fn guard(work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("panic without a message");
        let place = info
            .location()
            .map(|at| format!(" ({}:{})", at.file(), at.line()))
            .unwrap_or_default();
        let line: Vec<&str> = message.split_whitespace().collect();
        let text = format!("{}{place}", line.join(" "));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = LAST
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .unwrap_or_else(|| "unknown cause".to_string());
        Err(Error::Internal(text))
    })
}

#[cfg(test)]
mod tests {
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
