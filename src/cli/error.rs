//! How a command can end other than well, and what the shell is told.

use std::fmt;

use crate::experiment::crash::sentence;

use super::output;

/// Why the program does not end with success.
#[derive(Debug)]
pub enum Error {
    /// The command line could not be read, or asks for help or the version.
    Usage(clap::Error),
    /// Text that was asked for: no failure, but nothing is left to run.
    Help(String),
    /// The run or its config failed.
    Failed(anyhow::Error),
    /// A panic: an error in the program itself.
    Internal(String),
}

impl Error {
    pub(super) fn help(text: String) -> Error {
        Error::Help(text)
    }

    /// The exit code: 0 success, 1 the run or its config failed, 2 usage.
    pub fn code(&self) -> u8 {
        match self {
            Error::Usage(error) => u8::from(error.use_stderr()) * 2,
            Error::Help(_) => 0,
            Error::Failed(_) | Error::Internal(_) => 1,
        }
    }

    /// Prints the error to stderr, or the text that was asked for to stdout.
    pub fn report(&self) {
        // A reader that went away is no reason to fail now.
        match self {
            Error::Usage(error) => drop(error.print()),
            Error::Help(text) => drop(output::print(text)),
            Error::Failed(_) | Error::Internal(_) => output::print_error(&format!("{self}\n")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(error) => write!(f, "{error}"),
            Error::Help(text) => f.write_str(text),
            Error::Failed(error) => {
                let mut text = format!("error: {error}");
                for cause in error.chain().skip(1).map(ToString::to_string) {
                    // Many errors already tell their cause.
                    if !text.contains(&cause) {
                        text.push_str("\n  because: ");
                        text.push_str(&cause);
                    }
                }
                f.write_str(&text)
            }
            Error::Internal(what) => f.write_str(&sentence(what)),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Error {
        Error::Failed(error.into())
    }
}
