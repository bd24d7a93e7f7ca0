//! An observer of training that keeps what it is told.

use std::convert::Infallible;

use kiln::model::Decoder;
use kiln::train::{Diverged, Event, Observer, Optimizer, Progress};

/// The rows of a run, kept.
#[derive(Default)]
pub struct Log(pub Vec<Event>);

impl Observer for Log {
    type Error = Infallible;
    fn step(&mut self, _: usize, _: usize, _: f64, _: f64, _: u64) {}
    fn event(&mut self, event: &Event) -> Result<(), Infallible> {
        self.0.push(event.clone());
        Ok(())
    }
    fn checkpoint(&mut self, _: &Decoder, _: &Optimizer, _: &Progress) -> Result<(), Infallible> {
        Ok(())
    }
    fn diverged(&self, step: usize, what: Diverged) -> Infallible {
        panic!("diverged at step {step}: {what}")
    }
}
