//! Python's `strftime`, as it writes a time that knows no zone, in the C locale.

use std::fmt::Write;

use chrono::{DateTime, Local};

/// The directives that mean here what they mean in Python.
const KNOWN: &str = "aAbBcdHIjmMpUwWxXyYeFTDsntGVuCghklPrRS";
/// Those that a modifier may precede; it changes nothing in the C locale.
const WITH_E: &str = "cCxXyY";
const WITH_O: &str = "bBdeHImMSuUVwWy";

/// The time in this format; `None` where it pads or changes the case in a way that is not
/// known here. What is no directive stands for itself.
pub(super) fn strftime(now: &DateTime<Local>, format: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = format;
    while let Some((plain, directive)) = rest.split_once('%') {
        text.push_str(plain);
        let mut chars = directive.chars();
        let mut next = chars.next();
        let flag = next.filter(|c| "-_0^".contains(*c));
        if flag.is_some() {
            next = chars.next();
        }
        let modifier = next.filter(|c| "EO".contains(*c));
        if modifier.is_some() {
            next = chars.next();
        }
        rest = chars.as_str();
        let modified = match modifier {
            Some('E') => WITH_E,
            Some(_) => WITH_O,
            None => KNOWN,
        };
        match (next, flag, modifier) {
            (Some('z' | 'Z'), ..) => {}
            (Some('%'), _, None) => text.push('%'),
            (Some('f'), None, None) => write(&mut text, now, "%6f")?,
            (Some(c), flag, _) if modified.contains(c) => match flag {
                None => write(&mut text, now, &format!("%{c}"))?,
                Some('^') => {
                    let start = text.len();
                    write(&mut text, now, &format!("%{c}"))?;
                    if c != 'P' {
                        text[start..].make_ascii_uppercase();
                    }
                }
                Some(flag) => write(&mut text, now, &format!("%{flag}{c}"))?,
            },
            // A width, a second flag, or the cases exchanged.
            (Some(c), ..) if c.is_ascii_digit() || "-_^#".contains(c) => return None,
            _ => {
                text.push('%');
                text.push_str(&directive[..directive.len() - rest.len()]);
            }
        }
    }
    text.push_str(rest);
    Some(text)
}

fn write(text: &mut String, now: &DateTime<Local>, item: &str) -> Option<()> {
    write!(text, "{}", now.format(item)).ok()
}

#[cfg(test)]
mod tests {
    use chrono::{NaiveDate, TimeZone};

    use super::*;

    /// What Python gives.
    #[test]
    fn directives_are_those_of_python() {
        let day = NaiveDate::from_ymd_opt(2026, 12, 1).expect("a day");
        let time = day.and_hms_micro_opt(1, 3, 5, 4500).expect("a time");
        let now = Local.from_local_datetime(&time).earliest().expect("there");
        for (format, expected) in [
            ("%Y-%m-%d_%H-%M-%S", "2026-12-01_01-03-05"),
            ("%a %A %b %B", "Tue Tuesday Dec December"),
            (
                "%c|%x|%X|%p",
                "Tue Dec  1 01:03:05 2026|12/01/26|01:03:05|AM",
            ),
            ("%f %% %%f %j", "004500 % %f 335"),
            ("[%z%Z%-z]", "[]"),
            ("%q %v %+ %+Y %-q", "%q %v %+ %+Y %-q"),
            ("%^p%^P%^B%-%", "AMamDECEMBER%"),
            ("%:z %.f %é %L", "%:z %.f %é %L"),
            ("%-d|%_d|%0e|%^a", "1| 1|01|TUE"),
            ("%Ey %Od %Ed %E %O", "26 01 %Ed %E %O"),
            ("x%", "x%"),
            ("%-", "%-"),
            ("", ""),
            ("100% é", "100% é"),
        ] {
            let text = strftime(&now, format);
            assert_eq!(text.as_deref(), Some(expected), "{format}");
        }
        for format in ["%10Y", "%03d", "%#Z", "%-a"] {
            assert_eq!(strftime(&now, format), None, "{format}");
        }
    }
}
