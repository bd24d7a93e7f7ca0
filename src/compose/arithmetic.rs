//! Arithmetic resolvers: `${mul:2,${lora.r}}`. Hydra's users write these
//! themselves in Python, so the results are Python's: ints stay ints, `div` gives
//! a float, `round` takes halves to the even neighbour.

use std::cmp::Ordering;

use super::found::{Fail, fail};
use super::node::{Node, Value};
use super::python;

/// The resolvers of this file.
pub(crate) const NAMES: [&str; 7] = ["add", "div", "max", "min", "mul", "round", "sub"];

/// Calls one of [`NAMES`].
///
/// # Errors
/// What is no number, a division by zero, a result that fits no 64 bits.
pub(crate) fn call(name: &str, args: &[Node]) -> Result<Value, Fail> {
    let (least, most) = match name {
        "round" => (1, 2),
        "div" | "sub" => (2, 2),
        _ => (1, usize::MAX),
    };
    if !(least..=most).contains(&args.len()) {
        let wanted = match (least, most) {
            (2, 2) => "two numbers",
            (1, 2) => "a number and, if wanted, its decimal places",
            _ => "at least one number",
        };
        return fail(format!("{name} takes {wanted}, got {}", args.len()));
    }
    let numbers = args
        .iter()
        .map(|arg| number(name, arg))
        .collect::<Result<Vec<_>, _>>()?;
    if name == "round" {
        return round(numbers[0], numbers.get(1).copied());
    }
    let mut total = numbers[0];
    for next in &numbers[1..] {
        total = match name {
            "min" if next.is_below(total) => *next,
            "max" if total.is_below(*next) => *next,
            "min" | "max" => total,
            "div" => divide(total, *next)?,
            _ => combine(name, total, *next)?,
        };
    }
    Ok(total.value())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Int(i64),
    Float(f64),
}

fn number(name: &str, arg: &Node) -> Result<Number, Fail> {
    if arg.is_null() {
        return fail(format!("{name} takes numbers, not null"));
    }
    let hint = match &arg.value {
        Value::Int(i) => return Ok(Number::Int(*i)),
        Value::Float(f) => return Ok(Number::Float(*f)),
        Value::Str(text) if python::parse_float(text).is_some() => {
            "; it is a string: ${oc.decode:..} around it reads the number"
        }
        Value::List(_) => "; give its items one by one",
        Value::BigInt(_) => " (it does not fit 64 bits)",
        _ => "",
    };
    fail(format!(
        "{name} takes numbers, not {} {}{hint}",
        arg.type_name(),
        python::repr(&arg.value)
    ))
}

impl Number {
    fn value(self) -> Value {
        match self {
            Number::Int(i) => Value::Int(i),
            Number::Float(f) => Value::Float(f),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(f) => f,
        }
    }

    /// Compares by value, also an int with a float that cannot hold it.
    fn is_below(self, other: Number) -> bool {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a < b,
            (Number::Float(a), Number::Float(b)) => a < b,
            (Number::Int(a), Number::Float(b)) => int_to_float(a, b) == Some(Ordering::Less),
            (Number::Float(a), Number::Int(b)) => int_to_float(b, a) == Some(Ordering::Greater),
        }
    }
}

/// How an int compares with a float; `None` for NaN.
fn int_to_float(int: i64, float: f64) -> Option<Ordering> {
    // Within this bound a float's whole part is an i64.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= BOUND {
        return Some(Ordering::Less);
    }
    if float < -BOUND {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i64)).then_with(|| {
        // Equal whole parts: the fraction decides.
        0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)
    }))
}

fn combine(name: &str, a: Number, b: Number) -> Result<Number, Fail> {
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        let result = match name {
            "mul" => a.checked_mul(b),
            "add" => a.checked_add(b),
            _ => a.checked_sub(b),
        };
        return match result {
            Some(i) => Ok(Number::Int(i)),
            None => too_large(name),
        };
    }
    let (a, b) = (a.as_f64(), b.as_f64());
    finite(
        name,
        [a, b],
        match name {
            "mul" => a * b,
            "add" => a + b,
            _ => a - b,
        },
    )
}

fn divide(a: Number, b: Number) -> Result<Number, Fail> {
    if b.as_f64() == 0.0 {
        return fail(format!("div: division of {} by zero", text(a)));
    }
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        return Ok(Number::Float(true_quotient(a, b)));
    }
    let (a, b) = (a.as_f64(), b.as_f64());
    finite("div", [a, b], a / b)
}

/// The float nearest to the exact quotient, as Python's `/` gives it for ints.
fn true_quotient(a: i64, b: i64) -> f64 {
    const EXACT: u64 = 1 << 53;
    let (numerator, divisor) = (a.unsigned_abs(), b.unsigned_abs());
    if numerator <= EXACT && divisor <= EXACT {
        return a as f64 / b as f64;
    }
    if numerator == 0 {
        return 0.0;
    }
    // At least 64 bits of quotient; what is left over counts as one more bit.
    let numerator = u128::from(numerator);
    let shift = numerator.leading_zeros();
    let shifted = numerator << shift;
    let divisor = u128::from(divisor);
    let quotient = (shifted / divisor) | u128::from(shifted % divisor != 0);
    let size = quotient as f64 / 2f64.powi(shift as i32);
    if (a < 0) == (b < 0) { size } else { -size }
}

fn finite(name: &str, of: [f64; 2], result: f64) -> Result<Number, Fail> {
    if result.is_infinite() && of.iter().all(|x| x.is_finite()) {
        return fail(format!("{name}: the result is too large for a float"));
    }
    Ok(Number::Float(result))
}

fn too_large<T>(name: &str) -> Result<T, Fail> {
    fail(format!("{name}: the result does not fit 64 bits"))
}

fn text(number: Number) -> String {
    python::repr(&number.value())
}

/// To an int, or to a number of decimal places, which may be negative.
fn round(number: Number, places: Option<Number>) -> Result<Value, Fail> {
    let places = match places {
        None => None,
        Some(Number::Int(places)) => Some(places),
        Some(other) => {
            return fail(format!(
                "round: the number of decimal places is an int, not {}",
                text(other)
            ));
        }
    };
    match (number, places) {
        (Number::Int(i), None | Some(0..)) => Ok(Value::Int(i)),
        (Number::Int(i), Some(places)) => round_int(i, places),
        (Number::Float(f), None) if !f.is_finite() => {
            fail(format!("round: {} is no int", python::float(f)))
        }
        (Number::Float(f), None) => {
            let rounded = f.round_ties_even();
            if rounded.abs() < 9_223_372_036_854_775_808.0 {
                Ok(Value::Int(rounded as i64))
            } else {
                too_large("round")
            }
        }
        (Number::Float(f), Some(places)) => {
            let rounded = round_float(f, places);
            finite("round", [f, f], rounded).map(Number::value)
        }
    }
}

/// An int to tens, hundreds, ..., halves to the even one.
fn round_int(i: i64, places: i64) -> Result<Value, Fail> {
    // 10^20 is more than twice any 64-bit int.
    if places < -19 {
        return Ok(Value::Int(0));
    }
    let unit = 10i128.pow(places.unsigned_abs() as u32);
    let i = i128::from(i);
    let (down, rest) = (i.div_euclid(unit), i.rem_euclid(unit));
    let up = match (rest * 2).cmp(&unit) {
        Ordering::Less => false,
        Ordering::Equal => down % 2 != 0,
        Ordering::Greater => true,
    };
    match i64::try_from((down + i128::from(up)) * unit) {
        Ok(i) => Ok(Value::Int(i)),
        Err(_) => too_large("round"),
    }
}

/// The float nearest to the exact decimal expansion, cut at `places`.
fn round_float(f: f64, places: i64) -> f64 {
    // A float has no digits beyond these.
    if !f.is_finite() || f == 0.0 || places > 1074 {
        return f;
    }
    let exponent: i64 = format!("{f:e}")
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    // Digits after the first one that stay.
    let digits = exponent.saturating_add(places);
    if digits >= 0 {
        let digits = digits.min(1100) as usize;
        return format!("{f:.digits$e}").parse().unwrap_or(f);
    }
    let zero = 0f64.copysign(f);
    if digits < -1 {
        return zero;
    }
    // Only the place above the first digit stays: it is 1 above the half, else 0.
    let half: f64 = format!("5e{exponent}").parse().unwrap_or(f64::INFINITY);
    if f.abs() > half {
        let unit: f64 = format!("1e{}", exponent + 1)
            .parse()
            .unwrap_or(f64::INFINITY);
        unit.copysign(f)
    } else {
        zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &str, args: &[Value]) -> Result<Value, String> {
        let args: Vec<Node> = args.iter().cloned().map(Node::built_in).collect();
        call(name, &args).map_err(|f| f.message().to_string())
    }

    use Value::{Float, Int};

    /// What CPython 3.11 gives.
    #[test]
    fn results_are_pythons() {
        let big = 9_007_199_254_740_993; // 2^53 + 1
        for (name, args, expected) in [
            ("mul", vec![Int(2), Int(3), Int(4)], Int(24)),
            ("mul", vec![Int(2), Float(1.5)], Float(3.0)),
            ("add", vec![Int(1), Int(2), Float(0.5)], Float(3.5)),
            ("add", vec![Int(7)], Int(7)),
            ("sub", vec![Int(1), Int(3)], Int(-2)),
            ("div", vec![Int(6), Int(3)], Float(2.0)),
            ("div", vec![Int(-7), Int(2)], Float(-3.5)),
            ("div", vec![Int(big), Int(1)], Float(9007199254740992.0)),
            ("div", vec![Int(big), Int(3)], Float(3002399751580331.0)),
            (
                "div",
                vec![Int(1), Int(i64::MAX)],
                Float(1.0842021724855044e-19),
            ),
            (
                "div",
                vec![Int(i64::MIN), Int(-1)],
                Float(9.223372036854776e18),
            ),
            ("div", vec![Int(i64::MAX), Int(i64::MAX - 1)], Float(1.0)),
            ("min", vec![Int(2), Float(1.5), Int(3)], Float(1.5)),
            ("min", vec![Int(1), Float(1.0)], Int(1)),
            ("max", vec![Float(1.0), Int(1)], Float(1.0)),
            ("max", vec![Float(9007199254740992.0), Int(big)], Int(big)),
            ("max", vec![Float(-0.5), Int(0)], Int(0)),
            (
                "min",
                vec![Int(3), Float(f64::NEG_INFINITY)],
                Float(f64::NEG_INFINITY),
            ),
            ("round", vec![Float(2.5)], Int(2)),
            ("round", vec![Float(3.5)], Int(4)),
            ("round", vec![Float(-0.5)], Int(0)),
            ("round", vec![Int(5)], Int(5)),
            ("round", vec![Float(2.675), Int(2)], Float(2.67)),
            ("round", vec![Float(0.125), Int(2)], Float(0.12)),
            ("round", vec![Float(0.375), Int(2)], Float(0.38)),
            ("round", vec![Float(0.25), Int(1)], Float(0.2)),
            ("round", vec![Float(2.5), Int(0)], Float(2.0)),
            ("round", vec![Float(0.5), Int(0)], Float(0.0)),
            ("round", vec![Float(1250.0), Int(-2)], Float(1200.0)),
            ("round", vec![Float(50.0), Int(-2)], Float(0.0)),
            ("round", vec![Float(50.1), Int(-2)], Float(100.0)),
            ("round", vec![Float(9.96), Int(1)], Float(10.0)),
            ("round", vec![Float(0.5), Int(i64::MIN)], Float(0.0)),
            ("round", vec![Float(0.5), Int(i64::MAX)], Float(0.5)),
            ("round", vec![Float(1.5), Int(400)], Float(1.5)),
            ("round", vec![Int(1250), Int(-2)], Int(1200)),
            ("round", vec![Int(-1350), Int(-2)], Int(-1400)),
            ("round", vec![Int(17), Int(3)], Int(17)),
            ("round", vec![Int(9), Int(-40)], Int(0)),
        ] {
            assert_eq!(called(name, &args), Ok(expected), "{name} {args:?}");
        }
    }

    #[test]
    fn faults_say_why() {
        let list = Value::List(vec![Node::built_in(Int(1))]);
        let word = |text: &str| Value::Str(text.to_string());
        for (name, args, part) in [
            ("div", vec![Int(1), Int(0)], "division of 1 by zero"),
            ("div", vec![Float(1.0), Float(-0.0)], "by zero"),
            ("mul", vec![Int(i64::MAX), Int(2)], "does not fit 64 bits"),
            ("sub", vec![Int(i64::MIN), Int(1)], "does not fit 64 bits"),
            ("mul", vec![Float(1e308), Int(10)], "too large for a float"),
            ("round", vec![Float(1e19)], "does not fit 64 bits"),
            ("round", vec![Float(f64::NAN)], "nan is no int"),
            ("round", vec![Float(1.0), Float(2.0)], "is an int, not 2.0"),
            (
                "round",
                vec![Int(i64::MAX), Int(-1)],
                "does not fit 64 bits",
            ),
            ("round", vec![Float(1.79e308), Int(-308)], "too large"),
            (
                "mul",
                vec![Int(1), word("3")],
                "str '3'; it is a string: ${oc.decode",
            ),
            ("mul", vec![Int(1), word("abc")], "not str 'abc'"),
            ("add", vec![Value::Bool(true)], "not bool True"),
            ("add", vec![Value::Null], "not null"),
            ("max", vec![list], "one by one"),
            ("sub", vec![Int(1)], "takes two numbers, got 1"),
            ("max", vec![], "at least one number"),
            ("round", vec![Int(1), Int(2), Int(3)], "got 3"),
        ] {
            let message = called(name, &args).expect_err(name);
            assert!(message.contains(part), "{name} {args:?}: {message}");
        }
    }
}
