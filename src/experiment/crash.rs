//! A panic is always a fault in the program. Caught here, it is a sentence.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// From here on a panic prints nothing; it is only remembered for [`catch`]. One
/// that is caught and handled further down (a device that fails, say) stays silent.
pub fn remember_panics() {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("panic without a message");
        let place = info
            .location()
            .map(|at| format!(" ({}:{})", at.file(), at.line()))
            .unwrap_or_default();
        let text = format!("{}{place}", one_line(message));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }));
}

/// From here on what ends the process by a signal ends it with a sentence and exit code 1
/// instead: memory that cannot be had, a stack that is used up. The standard library has
/// said which before. A file that would be longer than a limit allows is an error of the
/// write, not a signal.
pub fn tell_aborts() {
    #[cfg(unix)]
    // SAFETY: the handler only calls what a signal handler may.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stopped as *const () as libc::sighandler_t;
        // The stack at hand may be the one that is used up.
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGABRT, &action, std::ptr::null_mut());
    }
}

#[cfg(unix)]
extern "C" fn stopped(_: libc::c_int) {
    const TEXT: &[u8] =
        b"error: the lines above say why the run ended. Where memory was short: lower \
        training.batch_size or training.max_seq_length; run plan says what a run needs\n";
    // SAFETY: both functions may be called in a signal handler.
    unsafe {
        libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len());
        libc::_exit(1);
    }
}

/// Runs `work`; the error is what a panic in it said, as one line, with its
/// place after [`remember_panics`].
///
/// # Errors
/// `work` panicked.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let remembered = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        remembered.unwrap_or_else(|| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            one_line(text.unwrap_or("unknown cause"))
        })
    })
}

/// How a panic is told to a user.
pub fn sentence(what: &str) -> String {
    format!(
        "internal error: {what}; this is a fault in the program, please report it with the command you ran"
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
