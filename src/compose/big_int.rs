//! Integers of any size, as Python has them: 64 bits where they fit, and their
//! decimal digits where they do not.

/// Python neither reads nor prints integers with more digits than this.
const MAX_DIGITS: usize = 4300;
/// Nine decimal digits make one limb.
const LIMB: u64 = 1_000_000_000;

/// An integer that does not fit 64 bits, by its decimal digits and its sign.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BigInt(String);

impl BigInt {
    /// The digits, with a `-` before them where it is negative.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest float; infinite where it is too large for one.
    pub fn to_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for BigInt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An integer of any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Integer {
    Small(i64),
    Big(BigInt),
}

/// An integer being read digit by digit.
#[derive(Default)]
pub(crate) struct Digits {
    /// The lowest limb first.
    limbs: Vec<u32>,
    too_long: bool,
}

impl Digits {
    /// Reads `text` in a base up to 36 behind what is read already. `None` where it has no
    /// digits or others than the base's.
    pub(crate) fn read(mut self, text: &str, base: u32) -> Option<Digits> {
        if text.is_empty() {
            return None;
        }
        for c in text.chars() {
            self.push(base, c.to_digit(base)?);
        }
        Some(self)
    }

    /// Multiplies by `base` and adds `digit`.
    pub(crate) fn push(&mut self, base: u32, digit: u32) {
        if self.too_long {
            return;
        }
        let mut carry = u64::from(digit);
        for limb in &mut self.limbs {
            let sum = u64::from(*limb) * u64::from(base) + carry;
            *limb = (sum % LIMB) as u32;
            carry = sum / LIMB;
        }
        if carry > 0 {
            self.limbs.push(carry as u32);
        }
        self.too_long = self.limbs.len() > MAX_DIGITS.div_ceil(9);
    }

    /// The integer; `None` where it has more digits than Python handles.
    pub(crate) fn value(&self, negative: bool) -> Option<Integer> {
        let mut text = String::from(if negative { "-" } else { "" });
        match self.limbs.split_last() {
            None => text.push('0'),
            Some((first, rest)) => {
                text.push_str(&first.to_string());
                rest.iter()
                    .rev()
                    .for_each(|limb| text.push_str(&format!("{limb:09}")));
            }
        }
        let digits = text.len() - usize::from(negative);
        if self.too_long || digits > MAX_DIGITS {
            return None;
        }
        Some(match text.parse() {
            Ok(int) => Integer::Small(int),
            Err(_) => Integer::Big(BigInt(text)),
        })
    }
}

/// The integer part of a float; `None` for infinite ones and NaN.
pub(crate) fn truncated(float: f64) -> Option<Integer> {
    if !float.is_finite() {
        return None;
    }
    let whole = format!("{:.0}", float.trunc().abs());
    Digits::default().read(&whole, 10)?.value(float < 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, base: u32, negative: bool) -> String {
        match Digits::default()
            .read(text, base)
            .and_then(|d| d.value(negative))
        {
            Some(Integer::Small(i)) => format!("{i}"),
            Some(Integer::Big(big)) => format!("big {big}"),
            _ => "none".to_string(),
        }
    }

    #[test]
    fn integers_of_any_size() {
        for (text, base, negative, expected) in [
            ("0", 10, true, "0"),
            ("007", 10, false, "7"),
            ("9223372036854775807", 10, false, "9223372036854775807"),
            ("9223372036854775808", 10, false, "big 9223372036854775808"),
            ("9223372036854775808", 10, true, "-9223372036854775808"),
            ("9223372036854775809", 10, true, "big -9223372036854775809"),
            (
                "FFFFFFFFFFFFFFFFFFFF",
                16,
                false,
                "big 1208925819614629174706175",
            ),
            (
                "1000000000000000000000",
                10,
                false,
                "big 1000000000000000000000",
            ),
            ("12", 2, false, "none"),
            ("", 10, false, "none"),
        ] {
            assert_eq!(read(text, base, negative), expected, "{text}");
        }
        assert_ne!(read(&"9".repeat(4300), 10, false), "none");
        assert_eq!(read(&"9".repeat(4301), 10, false), "none");
        assert_eq!(read(&"9".repeat(1_000_000), 10, false), "none");
    }

    #[test]
    fn floats_are_cut_to_integers() {
        assert_eq!(truncated(-3.9), Some(Integer::Small(-3)));
        assert_eq!(truncated(-0.5), Some(Integer::Small(0)));
        let big = truncated(1e23);
        assert!(matches!(big, Some(Integer::Big(b)) if b.as_str() == "99999999999999991611392"));
        assert_eq!(truncated(f64::INFINITY), None);
    }
}
