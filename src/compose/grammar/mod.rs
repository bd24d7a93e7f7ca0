//! The two grammars of Hydra: overrides (`key=value` and its relatives) and
//! OmegaConf's interpolations (`${..}`). They share their scalar tokens.

mod arguments;
mod casts;
mod cursor;
mod decimal;
mod edits;
pub(crate) mod element;
mod functions;
mod glob;
pub(crate) mod interpolation;
pub(crate) mod overrides;
mod scan;
pub(crate) mod sweeps;
pub(crate) mod template;
pub(crate) mod values;

/// A syntax error at a column (in characters, from 0).
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub column: usize,
    pub message: String,
}

impl Fault {
    pub(crate) fn new(column: usize, message: impl Into<String>) -> Fault {
        Fault {
            column,
            message: message.into(),
        }
    }
}

/// Brackets nested deeper than this are refused.
pub(crate) const MAX_DEPTH: usize = 64;
