//! Printing that survives a closed pipe: `run train --help | head -1` must not panic.

use std::io::{self, ErrorKind, Write};

/// Prints text to stdout as it is.
///
/// # Errors
/// A write that failed for another reason than a reader that went away; it says that
/// it was standard output.
pub fn print(text: &str) -> io::Result<()> {
    write(&mut io::stdout().lock(), text)
}

fn write(stdout: &mut impl Write, text: &str) -> io::Result<()> {
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let way_out = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, or ",
                _ => "",
            };
            let said =
                format!("standard output: cannot write: {error}; {way_out}send it elsewhere");
            Err(io::Error::new(error.kind(), said))
        }
        Ok(()) => Ok(()),
    }
}

/// Prints text to stderr. If that fails there is nobody left to tell.
pub(super) fn print_error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as the operating system does.
    struct Failing(i32);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(self.0))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_device_is_said_to_be_standard_output() {
        let error = write(&mut Failing(libc::ENOSPC), "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let text = error.to_string();
        assert!(
            text.starts_with("standard output: cannot write: No space left")
                && text.ends_with("; free some space, or send it elsewhere"),
            "{text}"
        );
        assert!(write(&mut Failing(libc::EPIPE), "x").is_ok());
    }
}
