//! Past runs: found, listed, shown, compared, run again, and which of them
//! `training.resume` goes on with.

mod config_diff;
mod diff;
mod error;
mod find;
mod inputs;
mod list;
mod record;
mod resume_plan;
mod show;
mod text;

pub use self::config_diff::{ConfigError, Difference, Leaves, shown as shown_value};
pub use self::diff::RunDiff;
pub use self::error::RegistryError;
pub use self::find::{RunEntry, find_runs, locate, run_dirs};
pub use self::inputs::Inputs;
pub use self::list::{RunList, RunRow};
pub use self::record::{Record, State};
pub use self::resume_plan::{ResumePlan, ResumeRequest, plan_resume};
pub use self::show::RunView;
