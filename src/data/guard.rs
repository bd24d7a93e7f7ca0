//! Crates that panic over files which contradict themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic says of the file: the crate found it as it should be, and then not.
pub(super) const CONTRADICTION: &str = "it contradicts itself";

/// What a crate makes of a file; `None` where it panicked. Nothing that it may have left
/// half done is used: the file is refused.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
