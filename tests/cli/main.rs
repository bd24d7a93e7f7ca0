//! The command line as a process: usage, completion, and the commands that read.

#[path = "../common/mod.rs"]
mod common;
mod completion;
mod errors_doc;
mod explain;
mod inspect;
mod report;
mod rerun;
mod runs;
mod usage;
