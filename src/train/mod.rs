//! Training: the loop, the optimiser, the schedule.

pub mod optimizer;
pub mod paged;
pub mod schedule;
pub mod trainer;

pub use optimizer::Optimizer;
pub use schedule::Schedule;
pub use trainer::{Diverged, Event, Observer, Progress, Trainer, ragged};
