//! Which cell did best.

use super::outcome::Outcome;
use crate::experiment::summary::Status;

/// The places of the best cells: one for each task of which two or more cells can
/// be compared. Judged by the task's main metric of the tuned model (of the base,
/// where nothing was tuned), then by the validation loss; where no cell has the
/// metric, by the loss alone. Of equals the first.
pub(super) fn best(outcomes: &[Outcome]) -> Vec<usize> {
    let mut tasks: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !tasks.contains(&outcome.task.as_str()) {
            tasks.push(&outcome.task);
        }
    }
    tasks
        .iter()
        .filter_map(|task| best_of(outcomes, task))
        .collect()
}

fn best_of(outcomes: &[Outcome], task: &str) -> Option<usize> {
    let finished = || {
        let all = outcomes.iter().enumerate();
        all.filter(|(_, o)| o.task == task && o.status == Status::Finished)
    };
    let by_metric: Vec<(usize, Score)> = finished()
        .filter_map(|(at, o)| Some((at, Score(metric(o)?, loss(o)))))
        .collect();
    let scores = match by_metric.is_empty() {
        false => by_metric,
        true => finished()
            .filter(|(_, o)| o.val_loss().is_some())
            .map(|(at, o)| (at, Score(0.0, loss(o))))
            .collect(),
    };
    let (mut best, mut top) = *scores.get(..2)?.first()?;
    for (at, score) in scores {
        if score.beats(top) {
            (best, top) = (at, score);
        }
    }
    Some(best)
}

/// A metric, of which more is better, and a loss, of which less is.
#[derive(Clone, Copy)]
struct Score(f64, f64);

impl Score {
    fn beats(self, other: Score) -> bool {
        self.0 > other.0 || (self.0 == other.0 && self.1 < other.1)
    }
}

fn metric(outcome: &Outcome) -> Option<f64> {
    let (base, tuned) = outcome.main_figures();
    tuned.or(base).filter(|figure| figure.is_finite())
}

fn loss(outcome: &Outcome) -> f64 {
    match outcome.val_loss() {
        Some(loss) if !loss.is_nan() => loss,
        _ => f64::INFINITY,
    }
}
