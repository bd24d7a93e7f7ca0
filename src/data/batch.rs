//! Samples into micro-batches, and those into accumulation windows.

use thiserror::Error;

use super::split::epoch_order;

/// A number that makes no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ScheduleError {
    #[error("no training samples: add examples to data.path, or lower training.val_ratio")]
    NoSamples,
    #[error("training.{0} is 0: set it to 1 or more")]
    Zero(&'static str),
    #[error("training.epochs is {0}: set it above 0, or set training.max_steps")]
    Epochs(f64),
}

/// How many optimiser steps there are and which samples each of them sees. With
/// packing a pack stands for a sample here ([`super::pack`]).
///
/// As in transformers' `Trainer` (`set_initial_training_values`, `_run_epoch`):
/// the last micro-batch of an epoch may hold fewer samples, the last window of an
/// epoch fewer micro-batches; an epoch has ceil(micro-batches / accumulation)
/// steps; the total is `max_steps` where given, else ceil(epochs x that).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    samples: usize,
    batch_size: usize,
    accumulation: usize,
    total_steps: usize,
}

impl Schedule {
    /// # Errors
    /// There are no samples, or a size is 0, or `epochs` is not above 0.
    pub fn new(
        samples: usize,
        batch_size: usize,
        accumulation: usize,
        epochs: f64,
        max_steps: Option<usize>,
    ) -> Result<Self, ScheduleError> {
        if samples == 0 {
            return Err(ScheduleError::NoSamples);
        }
        if batch_size == 0 {
            return Err(ScheduleError::Zero("batch_size"));
        }
        if accumulation == 0 {
            return Err(ScheduleError::Zero("gradient_accumulation_steps"));
        }
        let mut schedule = Self {
            samples,
            batch_size,
            accumulation,
            total_steps: 0,
        };
        schedule.total_steps = match max_steps {
            Some(steps) => steps,
            None if epochs > 0.0 && epochs.is_finite() => {
                (epochs * schedule.steps_per_epoch() as f64).ceil() as usize
            }
            None => return Err(ScheduleError::Epochs(epochs)),
        };
        Ok(schedule)
    }

    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    pub fn steps_per_epoch(&self) -> usize {
        self.micro_batches().div_ceil(self.accumulation)
    }

    fn micro_batches(&self) -> usize {
        self.samples.div_ceil(self.batch_size)
    }

    /// Epochs done after `steps` optimiser steps, with the fraction by micro-batches.
    pub fn epoch_after(&self, steps: usize) -> f64 {
        let (epoch, within) = (
            steps / self.steps_per_epoch(),
            steps % self.steps_per_epoch(),
        );
        let done = (within * self.accumulation).min(self.micro_batches());
        epoch as f64 + done as f64 / self.micro_batches() as f64
    }

    /// The windows from the step after `done` optimiser steps to the last. They
    /// depend on nothing but the schedule, `seed` and the step, so a resumed run
    /// sees the same samples.
    pub fn windows(self, seed: u64, shuffle: bool, done: usize) -> Windows {
        Windows {
            schedule: self,
            seed,
            shuffle,
            step: done,
            order: None,
        }
    }
}

/// The samples of one optimiser step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The number of the step, from 1.
    pub step: usize,
    /// From 0.
    pub epoch: usize,
    /// Indices of the samples of each micro-batch.
    pub micro_batches: Vec<Vec<usize>>,
}

/// Iterator over [`Window`]s. See [`Schedule::windows`].
#[derive(Clone, Debug)]
pub struct Windows {
    schedule: Schedule,
    seed: u64,
    shuffle: bool,
    step: usize,
    /// The order of the current epoch.
    order: Option<(usize, Vec<usize>)>,
}

impl Iterator for Windows {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        let s = self.schedule;
        if self.step >= s.total_steps {
            return None;
        }
        let (epoch, within) = (
            self.step / s.steps_per_epoch(),
            self.step % s.steps_per_epoch(),
        );
        let (_, order) = match self.order.take() {
            Some(order) if order.0 == epoch => self.order.insert(order),
            _ => self.order.insert((
                epoch,
                epoch_order(s.samples, self.seed, epoch, self.shuffle),
            )),
        };
        let micro_batches = order
            .chunks(s.batch_size)
            .skip(within * s.accumulation)
            .take(s.accumulation)
            .map(<[usize]>::to_vec)
            .collect();
        self.step += 1;
        Some(Window {
            step: self.step,
            epoch,
            micro_batches,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_as_trainer_counts_them() {
        // (samples, batch, accumulation, epochs, max_steps) -> (per epoch, total)
        for (given, want) in [
            ((100, 4, 4, 3.0, None), (7, 21)),
            ((100, 4, 4, 1.5, None), (7, 11)),
            ((3, 4, 4, 3.0, None), (1, 3)),
            ((33, 4, 2, 0.1, None), (5, 1)),
            ((33, 4, 2, 3.0, Some(50)), (5, 50)),
            ((33, 4, 2, 0.0, Some(2)), (5, 2)),
        ] {
            let s = Schedule::new(given.0, given.1, given.2, given.3, given.4).unwrap();
            assert_eq!((s.steps_per_epoch(), s.total_steps()), want, "{given:?}");
        }
        assert_eq!(
            Schedule::new(0, 1, 1, 1.0, None),
            Err(ScheduleError::NoSamples)
        );
        assert_eq!(
            Schedule::new(1, 0, 1, 1.0, None),
            Err(ScheduleError::Zero("batch_size"))
        );
        assert_eq!(
            Schedule::new(1, 1, 1, 0.0, None),
            Err(ScheduleError::Epochs(0.0))
        );
    }

    #[test]
    fn every_epoch_sees_every_sample_once() {
        let s = Schedule::new(23, 3, 3, 2.0, None).unwrap();
        let windows: Vec<Window> = s.windows(5, true, 0).collect();
        assert_eq!(windows.len(), 6);
        for epoch in 0..2 {
            let of = windows.iter().filter(|w| w.epoch == epoch);
            let sizes: Vec<usize> = of.clone().map(|w| w.micro_batches.len()).collect();
            assert_eq!(sizes, [3, 3, 2]);
            let mut seen: Vec<usize> = of.flat_map(|w| w.micro_batches.concat()).collect();
            assert_eq!(seen, epoch_order(23, 5, epoch, true));
            seen.sort_unstable();
            assert_eq!(seen, (0..23).collect::<Vec<_>>());
        }
        assert_eq!(s.epoch_after(0), 0.0);
        assert_eq!(s.epoch_after(1), 3.0 / 8.0);
        assert_eq!(s.epoch_after(3), 1.0);
        assert_eq!(s.epoch_after(5), 1.75);
    }

    #[test]
    fn a_resumed_run_sees_the_same_windows() {
        let s = Schedule::new(17, 2, 2, 4.0, None).unwrap();
        let whole: Vec<Window> = s.windows(3, true, 0).collect();
        for done in 0..=whole.len() {
            assert_eq!(s.windows(3, true, done).collect::<Vec<_>>(), whole[done..]);
        }
        let plain = s.windows(3, false, 0).next().unwrap();
        assert_eq!(plain.micro_batches, [[0, 1], [2, 3]]);
    }
}
