//! What the functions of the override grammar take, and the choice that several values are.

use super::element::Element;
use super::sweeps::Sweep;

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    Element(Element),
    Sweep(Sweep),
}

/// The arguments of a call; named ones are taken out as they are used.
pub(super) struct Args<'n> {
    pub(super) function: &'n str,
    pub(super) positional: Vec<Arg>,
    pub(super) named: Vec<(String, Arg)>,
}

impl Args<'_> {
    pub(super) fn named(&mut self, name: &str) -> Option<Arg> {
        let at = self.named.iter().position(|(k, _)| k == name)?;
        Some(self.named.remove(at).1)
    }

    /// The argument in a place, given by position or by name.
    pub(super) fn get(&mut self, place: usize, name: &str) -> Result<Option<Arg>, String> {
        let by_name = self.named(name);
        match (self.positional.get(place), by_name) {
            (Some(_), Some(_)) => Err(format!(
                "{}() got '{name}' twice, by position and by name",
                self.function
            )),
            (Some(arg), None) => Ok(Some(arg.clone())),
            (None, by_name) => Ok(by_name),
        }
    }

    pub(super) fn at_most(&self, count: usize) -> Result<(), String> {
        if self.positional.len() > count {
            return Err(format!(
                "{}() takes at most {count} arguments, got {}",
                self.function,
                self.positional.len()
            ));
        }
        Ok(())
    }

    pub(super) fn refuse_edits(&self) -> Result<(), String> {
        let named = self.named.iter().map(|(_, arg)| arg);
        for arg in self.positional.iter().chain(named) {
            if let Arg::Element(Element::Edit(edit)) = arg {
                return Err(edit.misplaced(&format!("{}()", self.function)));
            }
        }
        Ok(())
    }

    pub(super) fn elements(&self) -> Result<Vec<Element>, String> {
        self.positional
            .iter()
            .map(|arg| match arg {
                Arg::Element(element) => Ok(element.clone()),
                Arg::Sweep(_) => Err(format!(
                    "{}() cannot hold a sweep among values",
                    self.function
                )),
            })
            .collect()
    }
}

pub(super) fn simple_choice(values: Vec<Element>) -> Arg {
    Arg::Sweep(Sweep::Choice {
        values,
        simple: true,
        shuffle: false,
    })
}
