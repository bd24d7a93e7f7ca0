//! The typed experiment. One table of keys ([`keys`]) says which keys there are;
//! the composed tree is checked against it ([`check`]), laid over the built-in
//! defaults and turned into a [`Config`] ([`from_composed`]). A [`Job`] bundles
//! what a command needs to run.

mod check;
mod checked;
mod cross;
mod docs;
mod embedded;
mod error;
pub mod explain;
mod fits;
mod job;
mod job_error;
pub mod keys;
mod layers;
mod origins;
mod rerun;
mod search_path;
mod suggest;
mod switches;
pub mod types;

pub use check::{Strictness, accepts, check};
pub use checked::compose_checked;
pub use docs::{column_help, markdown};
pub use error::{ConfigError, ConfigErrors};
pub use job::Job;
pub(crate) use job::names_one_directory;
pub use job_error::{JobError, RerunErrors, of_rerun};
pub use keys::elsewhere::called as key_called;
pub use layers::{complete, from_composed, from_tree};
pub use origins::{place, remark, underlay_defaults, why};
pub use rerun::saved_config;
pub use search_path::{search_path, tree_search_path};
pub use suggest::{Known, PathPart, Suggested, Suggestion, suggest, suggest_keys};
pub use types::*;
