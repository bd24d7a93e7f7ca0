//! Learning-rate schedules with linear warmup, as transformers computes them.

use crate::config::types::Scheduler;

/// The learning rate of every optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub scheduler: Scheduler,
    pub base_lr: f64,
    pub warmup_steps: usize,
    pub total_steps: usize,
}

impl Schedule {
    /// `warmup_steps` wins over `warmup_ratio`, which counts ceil(ratio x total).
    pub fn new(
        scheduler: Scheduler,
        base_lr: f64,
        warmup_ratio: f64,
        warmup_steps: Option<usize>,
        total_steps: usize,
    ) -> Self {
        let ratio_steps = (total_steps as f64 * warmup_ratio).ceil() as usize;
        Self {
            scheduler,
            base_lr,
            warmup_steps: warmup_steps.unwrap_or(ratio_steps),
            total_steps,
        }
    }

    /// The rate of step `step`, counting from 0: with warmup the first is 0. Then
    /// cosine and linear fall to 0 at `total_steps`; constant stays.
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.base_lr * step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let factor = match self.scheduler {
            Scheduler::Constant => 1.0,
            Scheduler::Linear => 1.0 - progress,
            Scheduler::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.base_lr * factor.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_equals_transformers() {
        let s = Schedule::new(Scheduler::Cosine, 1e-4, 0.0, Some(3), 20);
        // get_cosine_schedule_with_warmup(3, 20), lr 1e-4.
        assert_eq!(s.lr(0), 0.0);
        assert!((s.lr(1) - 3.333_333_333_333_333_5e-5).abs() < 1e-18);
        assert!((s.lr(3) - 1e-4).abs() < 1e-18);
        assert!((s.lr(19) - 8.513_8e-7).abs() < 1e-10);
    }

    #[test]
    fn linear_and_constant() {
        let s = Schedule::new(Scheduler::Linear, 1.0, 0.1, None, 100);
        assert_eq!(s.warmup_steps, 10);
        assert!((s.lr(55) - 0.5).abs() < 1e-12);
        assert_eq!(s.lr(100), 0.0);
        let s = Schedule::new(Scheduler::Constant, 1.0, 0.0, None, 100);
        assert_eq!(s.lr(0), 1.0);
        assert_eq!(s.lr(99), 1.0);
    }
}
