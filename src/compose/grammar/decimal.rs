//! Sums as Python's `decimal` makes them, by which Hydra counts through a range of floats:
//! every float is taken exactly, and every sum is rounded to 28 digits, halves to even.

use std::cmp::Ordering;

/// The digits that a sum keeps.
const PRECISION: usize = 28;
/// The places behind the point of the float with the most of them.
const PLACES: usize = 1074;

/// `digits` times ten to the power of `last`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decimal {
    negative: bool,
    /// The highest first, with no zero at either end.
    digits: Vec<u8>,
    last: i32,
}

impl Decimal {
    pub(super) fn from_int(int: i64) -> Decimal {
        Decimal::read(&int.to_string(), 0)
    }

    /// A finite float, exactly.
    pub(super) fn from_float(float: f64) -> Decimal {
        Decimal::read(&format!("{float:.PLACES$}"), -(PLACES as i32))
    }

    fn read(text: &str, last: i32) -> Decimal {
        let digits = text.bytes().filter(u8::is_ascii_digit).map(|c| c - b'0');
        Decimal::trimmed(text.starts_with('-'), digits.collect(), last)
    }

    fn trimmed(negative: bool, mut digits: Vec<u8>, mut last: i32) -> Decimal {
        while digits.last() == Some(&0) {
            digits.pop();
            last += 1;
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        Decimal {
            negative: negative && !digits.is_empty(),
            last: if digits.is_empty() { 0 } else { last },
            digits,
        }
    }

    /// The nearest float.
    pub(super) fn to_f64(&self) -> f64 {
        let digits: String = self.digits.iter().map(|d| char::from(b'0' + d)).collect();
        let sign = if self.negative { "-" } else { "" };
        // Without digits it is zero.
        let text = format!("{sign}0{digits}e{}", self.last);
        text.parse().unwrap_or(f64::NAN)
    }

    pub(super) fn plus(&self, other: &Decimal) -> Decimal {
        let last = self.last.min(other.last);
        let width = (self.top().max(other.top()) - last).max(0) as usize;
        let (a, b) = (self.spread(last, width), other.spread(last, width));
        let (negative, mut digits) = if self.negative == other.negative {
            (self.negative, sum(&a, &b))
        } else if a >= b {
            (self.negative, difference(&a, &b))
        } else {
            (other.negative, difference(&b, &a))
        };
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        rounded(negative, digits, last)
    }

    /// The power of ten right above the first digit.
    fn top(&self) -> i32 {
        self.last + self.digits.len() as i32
    }

    /// The digits in `width` places, the lowest of which is that of `last`.
    fn spread(&self, last: i32, width: usize) -> Vec<u8> {
        let below = (self.last - last).max(0) as usize;
        let above = width.saturating_sub(self.digits.len() + below);
        let mut places = vec![0; above];
        places.extend(&self.digits);
        places.resize(width, 0);
        places
    }

    fn size_cmp(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self
                .top()
                .cmp(&other.top())
                .then_with(|| self.digits.cmp(&other.digits)),
            (mine, others) => others.cmp(&mine),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(match (self.negative, other.negative) {
            (false, false) => self.size_cmp(other),
            (true, true) => other.size_cmp(self),
            (mine, others) => others.cmp(&mine),
        })
    }
}

/// Of as many digits each; one more for the carry.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = vec![0; a.len() + 1];
    for (at, (a, b)) in a.iter().zip(b).enumerate().rev() {
        let sum = digits[at + 1] + a + b;
        digits[at + 1] = sum % 10;
        digits[at] = sum / 10;
    }
    digits
}

/// Of as many digits each, the first not below the second.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut digits = a.to_vec();
    for (digit, b) in digits.iter_mut().zip(b).rev() {
        let left = 10 + *digit - b - borrow;
        *digit = left % 10;
        borrow = u8::from(left < 10);
    }
    digits
}

fn rounded(negative: bool, mut digits: Vec<u8>, last: i32) -> Decimal {
    if digits.len() <= PRECISION {
        return Decimal::trimmed(negative, digits, last);
    }
    let cut = digits.len() - PRECISION;
    let rest = digits.split_off(PRECISION);
    let half = rest[0]
        .cmp(&5)
        .then(match rest[1..].iter().any(|digit| *digit > 0) {
            true => Ordering::Greater,
            false => Ordering::Equal,
        });
    let odd = digits[PRECISION - 1] % 2 == 1;
    if half == Ordering::Greater || (half == Ordering::Equal && odd) {
        let nines = digits.iter().rev().take_while(|digit| **digit == 9).count();
        digits.truncate(PRECISION - nines);
        match digits.last_mut() {
            Some(digit) => *digit += 1,
            None => digits.push(1),
        }
        digits.resize(digits.len() + nines, 0);
    }
    Decimal::trimmed(negative, digits, last + cut as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_exact_and_come_back() {
        for float in [
            0.0,
            0.1,
            -0.3,
            1e300,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            1e22,
        ] {
            assert_eq!(Decimal::from_float(float).to_f64(), float);
        }
        let tenth = Decimal::from_float(0.1);
        assert_eq!((tenth.digits.len(), tenth.last), (55, -55));
        assert_eq!(Decimal::from_int(i64::MIN).to_f64(), i64::MIN as f64);
    }

    #[test]
    fn they_are_ordered() {
        let ordered = [
            -1e9, -2.5, -2.25, -1e-300, 0.0, 5e-324, 0.1, 2.0, 20.0, 21.0, 1e300,
        ];
        for pair in ordered.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(Decimal::from_float);
            assert_eq!(a.partial_cmp(&b), Some(Ordering::Less), "{pair:?}");
            assert_eq!(b.partial_cmp(&a), Some(Ordering::Greater), "{pair:?}");
        }
        // As floats they are one.
        let int = Decimal::from_int((1 << 53) + 1);
        assert!(int > Decimal::from_float(9_007_199_254_740_992.0));
    }

    /// `digits` behind a point.
    fn places(digits: &str) -> Decimal {
        Decimal::read(digits, -(digits.trim_start_matches('-').len() as i32))
    }

    #[test]
    fn sums_keep_28_digits_and_halves_go_to_even() {
        let one = Decimal::from_int(1);
        let eights = "8".repeat(26);
        for (added, expected) in [
            (format!("{eights}25"), format!("1{eights}2")),
            (format!("{eights}35"), format!("1{eights}4")),
            (format!("{eights}251"), format!("1{eights}3")),
            (format!("{eights}249"), format!("1{eights}2")),
            ("9".repeat(28), "2".to_string()),
        ] {
            let sum = one.plus(&places(&added));
            let digits: String = sum.digits.iter().map(|d| char::from(b'0' + d)).collect();
            assert_eq!(digits, expected, "{added}");
        }
        assert_eq!(one.plus(&Decimal::from_int(-1)), Decimal::from_int(0));
        assert_eq!(one.plus(&Decimal::from_int(-101)), Decimal::from_int(-100));
        assert_eq!(one.plus(&Decimal::from_float(1e-300)), one);
    }
}
