//! A run: its directory, metrics, checkpoints and registry, and the three jobs
//! that fill it: [`train`], [`infer`] and [`eval`]; a [`sweep`] is many runs.

mod best;
pub mod checkpoints;
pub mod crash;
pub mod doctor;
mod error;
mod eval;
pub mod forecast;
pub mod fsx;
mod infer;
mod lifecycle;
mod live;
pub mod log;
mod merge;
pub mod metrics;
mod predictions;
pub mod progress;
pub mod publish;
mod quantize;
mod ready;
pub mod registry;
mod resume;
mod routes;
pub mod run_dir;
mod sampled;
mod setup;
pub mod summary;
pub mod sweep;
pub mod table;
mod train;
mod watch;

pub use error::Error;
pub use eval::eval;
pub use forecast::forecast;
pub use infer::infer;
pub use merge::merge;
pub use quantize::quantize;
pub use setup::OUTPUTS;
pub use train::train;
