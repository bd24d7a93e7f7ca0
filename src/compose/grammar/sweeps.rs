//! Values that stand for many: `a,b`, `choice(..)`, `range(..)`, `glob(..)`, `interval(..)`.

use std::hash::{BuildHasher, Hasher};

use super::decimal::Decimal;
use super::element::Element;
use super::glob::Glob;

/// More values than this in one sweep are refused.
const MAX_VALUES: usize = 1_000_000;

/// An int or a float, as `range` and `interval` take them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(f) => f,
        }
    }

    fn decimal(self) -> Decimal {
        match self {
            Number::Int(i) => Decimal::from_int(i),
            Number::Float(f) => Decimal::from_float(f),
        }
    }

    pub(crate) fn element(self) -> Element {
        match self {
            Number::Int(i) => Element::Int(i),
            Number::Float(f) => Element::Float(f),
        }
    }
}

/// A parsed sweep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sweep {
    Choice {
        values: Vec<Element>,
        /// Written `a,b` and not `choice(a,b)`.
        simple: bool,
        shuffle: bool,
    },
    Range {
        start: Number,
        stop: Number,
        step: Number,
        shuffle: bool,
    },
    Interval {
        start: Number,
        end: Number,
    },
    Glob {
        include: Vec<String>,
        exclude: Vec<String>,
    },
}

impl Sweep {
    /// The values in order. `options` are those of the swept group, for `glob`.
    ///
    /// # Errors
    /// A range that never ends or is too long; an interval, which has no list of values.
    pub(crate) fn values(&self, options: &[String]) -> Result<Vec<Element>, String> {
        match self {
            Sweep::Choice {
                values, shuffle, ..
            } => Ok(maybe_shuffled(values.clone(), *shuffle)),
            Sweep::Range {
                start,
                stop,
                step,
                shuffle,
            } => Ok(maybe_shuffled(range(*start, *stop, *step)?, *shuffle)),
            Sweep::Glob { include, exclude } => {
                let globs = |patterns: &[String]| -> Vec<Glob> {
                    patterns.iter().map(|text| Glob::new(text)).collect()
                };
                let (include, exclude) = (globs(include), globs(exclude));
                let any = |globs: &[Glob], name: &str| globs.iter().any(|g| g.matches(name));
                Ok(options
                    .iter()
                    .filter(|name| any(&include, name) && !any(&exclude, name))
                    .map(|name| Element::Str(name.clone()))
                    .collect())
            }
            Sweep::Interval { .. } => Err(
                "interval() has no list of values; use range(start,stop,step) or choice(a,b)"
                    .to_string(),
            ),
        }
    }
}

fn maybe_shuffled(mut values: Vec<Element>, shuffle: bool) -> Vec<Element> {
    if shuffle {
        shuffle_in_place(&mut values);
    }
    values
}

/// Fisher-Yates with the randomness of the standard library's hasher: a shuffle
/// asked for on the command line is meant to differ from run to run.
pub(crate) fn shuffle_in_place<T>(values: &mut [T]) {
    let state = std::collections::hash_map::RandomState::new();
    for i in (1..values.len()).rev() {
        let mut hasher = state.build_hasher();
        hasher.write_usize(i);
        let j = (hasher.finish() % (i as u64 + 1)) as usize;
        values.swap(i, j);
    }
}

fn range(start: Number, stop: Number, step: Number) -> Result<Vec<Element>, String> {
    if step.as_f64() == 0.0 {
        return Err("the step of a range must not be 0".to_string());
    }
    let all = [start, stop, step];
    if all.iter().any(|n| !n.as_f64().is_finite()) {
        return Err("the bounds of a range must be finite".to_string());
    }
    let expected = ((stop.as_f64() - start.as_f64()) / step.as_f64()).ceil();
    if expected > MAX_VALUES as f64 {
        return Err(format!("a range of more than {MAX_VALUES} values"));
    }
    let mut values = Vec::new();
    if let [Number::Int(start), Number::Int(stop), Number::Int(step)] = all {
        let mut at = start;
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            values.push(Element::Int(at));
            match at.checked_add(step) {
                Some(next) => at = next,
                None => break,
            }
        }
        return Ok(values);
    }
    let mut value = start.as_f64();
    let [mut at, stop, step] = all.map(Number::decimal);
    let up = step > Decimal::from_int(0);
    while (if up { at < stop } else { at > stop }) && values.len() <= MAX_VALUES {
        values.push(Element::Float(value));
        at = at.plus(&step);
        value = at.to_f64();
    }
    if values.len() > MAX_VALUES {
        return Err(format!("a range of more than {MAX_VALUES} values"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sweep: &Sweep) -> Vec<String> {
        let values = sweep.values(&[]).expect("finite");
        values.iter().map(Element::to_text).collect()
    }

    fn range_of(start: Number, stop: Number, step: Number) -> Sweep {
        Sweep::Range {
            start,
            stop,
            step,
            shuffle: false,
        }
    }

    #[test]
    fn ranges_follow_python() {
        use Number::{Float, Int};
        assert_eq!(
            texts(&range_of(Int(0), Int(10), Int(3))),
            ["0", "3", "6", "9"]
        );
        assert_eq!(texts(&range_of(Int(5), Int(3), Int(-1))), ["5", "4"]);
        assert_eq!(
            texts(&range_of(Int(0), Int(1), Float(0.3))),
            ["0.0", "0.3", "0.6", "0.8999999999999999"]
        );
        // Neither sums of floats nor exact sums give these.
        let at = |nth: usize, start, stop, step| texts(&range_of(start, stop, step))[nth].clone();
        for (nth, start, stop, step, expected) in [
            (3, Int(0), Int(1), Float(0.1), "0.3"),
            (3, Int(0), Int(1), Float(0.15), "0.45"),
            (3, Int(0), Int(1), Float(0.01), "0.030000000000000002"),
            (7, Int(1), Int(0), Float(-0.1), "0.3"),
            (1, Int(-1), Int(1), Float(0.2), "-0.7999999999999999"),
            (5, Int(-1), Int(1), Float(0.2), "5.551115123145157e-17"),
            (2, Float(1e-5), Float(1e-4), Float(1e-5), "3e-05"),
        ] {
            assert_eq!(at(nth, start, stop, step), expected, "{start:?} {step:?}");
        }
        // The last sum is what falls short of the stop, not the float that is printed.
        let eighths = texts(&range_of(Int(0), Float(0.8), Float(0.1)));
        assert_eq!(eighths.last().map(String::as_str), Some("0.8"));
        assert!(texts(&range_of(Int(3), Int(0), Int(1))).is_empty());
        let top = i64::MAX;
        assert_eq!(texts(&range_of(Int(top - 1), Int(top), Int(5))).len(), 1);
    }

    #[test]
    fn endless_ranges_are_refused() {
        use Number::{Float, Int};
        for sweep in [
            range_of(Int(0), Int(1), Int(0)),
            range_of(Int(0), Int(i64::MAX), Int(1)),
            range_of(Int(i64::MIN), Int(i64::MAX), Int(1)),
            range_of(Float(0.0), Float(f64::INFINITY), Float(1.0)),
            range_of(Float(1e300), Float(2e300), Float(1e-300)),
            range_of(Float(1e16), Float(1e16 + 100.0), Float(1e-9)),
        ] {
            assert!(sweep.values(&[]).is_err(), "{sweep:?}");
        }
    }

    #[test]
    fn shuffling_keeps_the_values() {
        let mut values: Vec<usize> = (0..50).collect();
        shuffle_in_place(&mut values);
        values.sort_unstable();
        assert_eq!(values, (0..50).collect::<Vec<_>>());
    }
}
