//! The names that bitsandbytes gives to the parts of a 4-bit weight in a checkpoint.

use crate::model::checkpoint::Checkpoint;

pub(super) const STATE: &str = "quant_state.bitsandbytes__nf4";
/// What follows a weight's name in the names of its parts.
pub(in crate::model) const SUFFIXES: [&str; 5] = [
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    ".quant_state.bitsandbytes__nf4",
];

/// Whether the checkpoint holds the weight `name` in NF4 (or another 4-bit type
/// of bitsandbytes, which [`super::open`] refuses).
pub(in crate::model) fn is_quantised(checkpoint: &Checkpoint, name: &str) -> bool {
    checkpoint.contains(&format!("{name}.{STATE}"))
        || checkpoint.contains(&format!("{name}.quant_state.bitsandbytes__fp4"))
}
