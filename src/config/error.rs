//! What can be wrong with a config. Every message says where the value was
//! written, what is wrong and what to do.

use std::fmt;

use crate::compose::{Origin, Problem};

/// One thing wrong with one key.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// What keeps the config from being composed or resolved.
    #[error("{0}")]
    Composition(Problem),
    /// No such key in the table.
    #[error("{origin}: unknown key `{key}`\n  {hint}")]
    UnknownKey {
        key: String,
        origin: Origin,
        hint: String,
    },
    /// A value of another type than the key's.
    #[error("{origin}: `{key}` must be {expected}, not {found}\n  {hint}")]
    WrongType {
        key: String,
        origin: Origin,
        expected: String,
        found: String,
        hint: String,
    },
    /// A number outside the key's range.
    #[error("{origin}: `{key}` must be {expected}, not {found}\n  the default is {default}")]
    OutOfRange {
        key: String,
        origin: Origin,
        expected: String,
        found: String,
        default: String,
    },
    /// A word that is none of the key's options.
    #[error("{origin}: `{key}` has no option `{found}`\n  {hint}options: {options}")]
    UnknownOption {
        key: String,
        origin: Origin,
        found: String,
        options: String,
        hint: String,
    },
    /// A value that is known, but cannot be had in this version.
    #[error("{origin}: `{key}={found}` is not available in this version\n  available: {available}")]
    NotAvailable {
        key: String,
        origin: Origin,
        found: String,
        available: String,
    },
    /// `???` was left in place.
    #[error("{origin}: `{key}` has no value yet (`???`)\n  set it: {key}=VALUE ({help})")]
    Missing {
        key: String,
        origin: Origin,
        help: String,
    },
    /// Values that are right by themselves but not together.
    #[error("{origin}: {message}\n  {hint}")]
    Conflict {
        origin: Origin,
        message: String,
        hint: String,
    },
    /// The table and the typed config disagree; a test keeps this from happening.
    #[error("{origin}: {message}\n  this is an error in the program: please report it")]
    Extract { origin: String, message: String },
}

impl ConfigError {
    /// Where the value was written, when it is known.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            ConfigError::UnknownKey { origin, .. }
            | ConfigError::WrongType { origin, .. }
            | ConfigError::OutOfRange { origin, .. }
            | ConfigError::UnknownOption { origin, .. }
            | ConfigError::NotAvailable { origin, .. }
            | ConfigError::Missing { origin, .. }
            | ConfigError::Conflict { origin, .. } => Some(origin),
            ConfigError::Composition(problem) => problem.origin.as_ref(),
            ConfigError::Extract { .. } => None,
        }
    }
}

/// Everything wrong with a config, in the order of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            writeln!(f, "{} problems in the config:", self.0.len())?;
        }
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
