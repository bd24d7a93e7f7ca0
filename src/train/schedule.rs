//! Learning-rate schedules with linear warmup, as transformers computes them.

use crate::config::types::{Scheduler, TrainingConfig};

/// The learning rate of every optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub scheduler: Scheduler,
    pub base_lr: f64,
    pub warmup_steps: usize,
    pub total_steps: usize,
    /// Only of `warmup_stable_decay`.
    pub decay_steps: usize,
}

impl Schedule {
    /// `warmup_steps` wins over `warmup_ratio`, which counts ceil(ratio x total).
    pub fn new(training: &TrainingConfig, total_steps: usize) -> Self {
        let share = |ratio: f64| (total_steps as f64 * ratio).ceil() as usize;
        let warmup_steps = training.warmup_steps;
        Self {
            scheduler: training.scheduler,
            base_lr: training.learning_rate,
            warmup_steps: warmup_steps.unwrap_or_else(|| share(training.warmup_ratio)),
            total_steps,
            decay_steps: share(training.decay_ratio),
        }
    }

    /// The rate of step `step`, counting from 0: with warmup the first is 0. Then
    /// cosine and linear fall to 0 at `total_steps`; constant stays; `warmup_stable_decay`
    /// stays, then falls linearly to 0 in the last `decay_steps` (Hu et al., 2024).
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.base_lr * step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let factor = match self.scheduler {
            Scheduler::Constant => 1.0,
            Scheduler::Linear => 1.0 - progress,
            Scheduler::WarmupStableDecay => {
                let left = self.total_steps.saturating_sub(step);
                (left as f64 / self.decay_steps.max(1) as f64).min(1.0)
            }
            Scheduler::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.base_lr * factor.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(scheduler: Scheduler, base_lr: f64, warmup_steps: usize, total: usize) -> Schedule {
        Schedule {
            scheduler,
            base_lr,
            warmup_steps,
            total_steps: total,
            decay_steps: total / 4,
        }
    }

    #[test]
    fn cosine_equals_transformers() {
        let s = schedule(Scheduler::Cosine, 1e-4, 3, 20);
        // get_cosine_schedule_with_warmup(3, 20), lr 1e-4.
        assert_eq!(s.lr(0), 0.0);
        assert!((s.lr(1) - 3.333_333_333_333_333_5e-5).abs() < 1e-18);
        assert!((s.lr(3) - 1e-4).abs() < 1e-18);
        assert!((s.lr(19) - 8.513_8e-7).abs() < 1e-10);
    }

    #[test]
    fn linear_constant_and_stable_with_decay() {
        let s = schedule(Scheduler::Linear, 1.0, 10, 100);
        assert!((s.lr(55) - 0.5).abs() < 1e-12);
        assert_eq!(s.lr(100), 0.0);
        let s = schedule(Scheduler::Constant, 1.0, 0, 100);
        assert_eq!(s.lr(0), 1.0);
        assert_eq!(s.lr(99), 1.0);
        let s = schedule(Scheduler::WarmupStableDecay, 1.0, 10, 100);
        assert_eq!(s.lr(5), 0.5);
        assert_eq!((s.lr(10), s.lr(75)), (1.0, 1.0));
        assert!((s.lr(90) - 0.4).abs() < 1e-12);
    }
}
