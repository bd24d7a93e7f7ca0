//! Sizes of memory for people.

/// In binary units, as memory is sold: `512 B`, `1.5 KiB`, `23.4 GiB`.
pub fn memory_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Reads `24GiB`, `24 GB`, `24G`, `512MiB`, or a number of bytes that is a size of memory: `24`
/// is more likely one without its unit. A unit without the i is binary as well: a card of
/// "24 GB" has 24 GiB.
///
/// # Errors
/// What a size looks like.
pub fn parse_memory_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write for example 24GiB or 512MiB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    let least = if shift == 0 { 1u64 << 20 } else { 1 } as f64;
    match bytes >= least && bytes < u64::MAX as f64 {
        true => Ok(bytes as u64),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_or_four_digits() {
        assert_eq!(memory_size(0), "0 B");
        assert_eq!(memory_size(1023), "1023 B");
        assert_eq!(memory_size(1536), "1.5 KiB");
        assert_eq!(memory_size((1 << 30) - 1), "1.0 GiB");
        assert_eq!(memory_size(80 << 30), "80.0 GiB");
        assert_eq!(memory_size(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn sizes_are_read_in_the_ways_people_write_them() {
        for text in ["24GiB", "24 GB", "24g", "24G", "25769803776", "24576 MiB"] {
            assert_eq!(parse_memory_size(text), Ok(24 << 30), "{text}");
        }
        assert_eq!(parse_memory_size("1.5k"), Ok(1536));
        for text in ["", "GiB", "-1G", "24 apples", "0", "1e99G", "24GiB more"] {
            assert!(parse_memory_size(text).is_err(), "{text}");
        }
    }
}
