//! The two grammars of Hydra: overrides (`key=value` and its relatives) and
//! OmegaConf's interpolations (`${..}`). They share their scalar tokens.

pub(crate) mod casts;
pub(crate) mod edits;
pub(crate) mod element;
pub(crate) mod functions;
pub(crate) mod glob;
pub(crate) mod interpolation;
pub(crate) mod overrides;
pub(crate) mod scan;
pub(crate) mod sweeps;
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
