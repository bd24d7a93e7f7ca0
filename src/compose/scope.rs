//! What all resolving of one composition shares: its time, and a budget of
//! work. Interpolations can multiply each other (`a: ${b}${b}`, `b: ${c}${c}`,
//! ...), so that a short config asks for more than any machine has.

use std::cell::Cell;

use chrono::{DateTime, Local};

use super::found::Fail;

/// Steps that one composition may take: an interpolation looked up is one, a
/// value copied is one, and so are [`BYTES_A_STEP`] bytes of text.
const MAX_STEPS: usize = 2_000_000;
const BYTES_A_STEP: usize = 32;
/// Looking for the nearest key is slow in a large config: only the first
/// problems get a suggestion.
const MAX_HINTS: usize = 20;

pub(crate) struct Scope {
    pub now: DateTime<Local>,
    steps_left: Cell<usize>,
    hints_left: Cell<usize>,
}

impl Scope {
    pub(crate) fn new(now: DateTime<Local>) -> Scope {
        Scope {
            now,
            steps_left: Cell::new(MAX_STEPS),
            hints_left: Cell::new(MAX_HINTS),
        }
    }

    /// Takes steps from the budget.
    ///
    /// # Errors
    /// When it is spent.
    pub(crate) fn spend(&self, steps: usize) -> Result<(), Fail> {
        match self.steps_left.get().checked_sub(steps) {
            Some(left) => {
                self.steps_left.set(left);
                Ok(())
            }
            None => {
                self.steps_left.set(0);
                Err(Fail::Limit(format!(
                    "interpolations take more than {MAX_STEPS} steps; do they multiply each other?"
                )))
            }
        }
    }

    /// Takes the steps that a text of this many bytes costs.
    ///
    /// # Errors
    /// As [`Scope::spend`].
    pub(crate) fn spend_text(&self, bytes: usize) -> Result<(), Fail> {
        self.spend(1 + bytes / BYTES_A_STEP)
    }

    /// Whether one more suggestion may be looked for.
    pub(crate) fn take_hint(&self) -> bool {
        let left = self.hints_left.get();
        self.hints_left.set(left.saturating_sub(1));
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_stays_spent() {
        let scope = Scope::new(Local::now());
        assert!(scope.spend(MAX_STEPS - 1).is_ok());
        assert!(scope.spend_text(BYTES_A_STEP).is_err());
        assert!(scope.spend(1).is_err());
        assert!(scope.spend(0).is_ok());
    }
}
