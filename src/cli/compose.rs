//! `run compose`.

use super::args::ComposeArgs;
use super::error::Error;

/// Composes and prints any Hydra config tree.
pub(super) fn call(args: ComposeArgs) -> Result<(), Error> {
    args.print()
}
