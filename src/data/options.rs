//! The options of a multiple-choice question, and which of them the answer names.

use serde_json::Value;

use super::error::{RowProblem, excerpt};
use super::example::option_letter;

/// The most options a question can have: the letters A to Z.
pub const MAX_OPTIONS: usize = 26;

/// The options in one cell: a JSON or Python list (or a mapping from letters),
/// `a | b | c`, one option a line, or labels (`A) ..`, `A. ..`, `A: ..`,
/// `(A) ..`) in order, on lines of their own or on one.
pub fn parse_options(cell: &str) -> Result<Vec<String>, RowProblem> {
    let cell = cell.trim();
    let fail = |why| RowProblem::Options {
        text: excerpt(cell, 60),
        why,
    };
    if cell.is_empty() {
        return Err(RowProblem::EmptyField { field: "options" });
    }
    let options = if (cell.starts_with('[') && cell.ends_with(']'))
        || (cell.starts_with('{') && cell.ends_with('}'))
    {
        literal_list(cell).ok_or_else(|| fail("neither a JSON nor a Python list of strings"))?
    } else if let Some(options) = labelled_lines(cell) {
        options
    } else if cell.contains('|') {
        cell.split('|').map(|o| o.trim().to_string()).collect()
    } else if let Some(options) = inline_labels(cell) {
        options
    } else if cell.contains('\n') {
        cell.lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(str::to_string)
            .collect()
    } else {
        return Err(fail("no list, '|' or labels found"));
    };
    finish_options(options)
}

/// A string, number or truth value as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list of scalars.
pub(super) fn scalars(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(scalar).collect()
}

/// The texts and labels of choices as ARC has them: `{"text": [..], "label": [..]}`.
pub(super) fn labelled(choices: &Value) -> Option<(Vec<String>, Vec<String>)> {
    let [texts, labels] = [
        scalars(choices.get("text")?)?,
        scalars(choices.get("label")?)?,
    ];
    (texts.len() == labels.len()).then_some((texts, labels))
}

/// Trims options, removes labels that all of them carry, and checks them.
pub fn finish_options(options: Vec<String>) -> Result<Vec<String>, RowProblem> {
    let options: Vec<String> = options.into_iter().map(trimmed).collect();
    let options = strip_labels(options);
    if let Some(i) = options.iter().position(String::is_empty) {
        return Err(RowProblem::EmptyOption {
            letter: option_letter(i),
        });
    }
    if !(2..=MAX_OPTIONS).contains(&options.len()) {
        return Err(RowProblem::OptionCount(options.len()));
    }
    Ok(options)
}

/// `text` without blanks at its ends, in place where it has none.
pub(super) fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() {
        text
    } else {
        text.trim().to_string()
    }
}

/// How the data names its options, which its answers refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    /// Not at all: letters, or an index from 0.
    #[default]
    None,
    /// In columns `option1`, `option2`, ..: letters, or a number from 1.
    FromOne,
    /// By a list beside the texts, in their order, as in ARC.
    Listed(Vec<String>),
}

/// The index of the option that `answer` names: by its listed label; by letter (`B`, `(b)`,
/// `B.`), by letter and text (`B) Rome`), by number, or by the option's text.
/// Refuses an answer that names two different options.
pub fn resolve_answer(
    answer: &str,
    options: &[String],
    labels: &Labels,
) -> Result<usize, RowProblem> {
    let answer = answer.trim();
    if answer.is_empty() {
        return Err(RowProblem::EmptyField { field: "answer" });
    }
    if let Labels::Listed(labels) = labels {
        let mut named = (0..options.len())
            .filter(|i| labels.get(*i).is_some_and(|label| same_text(label, answer)));
        if let (Some(index), None) = (named.next(), named.next()) {
            return Ok(index);
        }
    }
    let mut meanings: Vec<(usize, &'static str)> = Vec::new();
    let mut mean = |index: usize, how| {
        if index < options.len() && !meanings.iter().any(|m| m.0 == index) {
            meanings.push((index, how));
        }
    };
    // Listed labels are the only ones: `A` may be the name of another option than the first.
    let listed = matches!(labels, Labels::Listed(_));
    if let Some((index, rest)) = leading_label(answer).filter(|_| !listed)
        && (rest.is_empty() || options.get(index).is_some_and(|o| same_text(o, rest)))
    {
        mean(index, "letter");
    }
    match (answer.parse::<usize>(), labels) {
        (Ok(index), Labels::None) => mean(index, "index"),
        (Ok(number @ 1..), Labels::FromOne) => mean(number - 1, "number"),
        _ => {}
    }
    let exact = options.iter().any(|o| o == answer);
    for (index, option) in options.iter().enumerate() {
        if if exact {
            option == answer
        } else {
            same_text(option, answer)
        } {
            mean(index, "text");
        }
    }
    let name = |index: usize| match labels {
        Labels::Listed(labels) => labels.get(index).map_or("", String::as_str).to_string(),
        _ => option_letter(index).to_string(),
    };
    match meanings[..] {
        [(index, _)] => Ok(index),
        [] if *labels == Labels::FromOne && answer == "0" => Err(RowProblem::ZeroOfOne),
        [] => Err(RowProblem::NoSuchOption {
            answer: excerpt(answer, 60),
            options: options
                .iter()
                .enumerate()
                .map(|(i, o)| format!("{}) {}", excerpt(&name(i), 10), excerpt(o, 30)))
                .collect::<Vec<_>>()
                .join(", "),
            number: match labels {
                Labels::None => "the letter, the index from 0",
                Labels::FromOne => "the letter, the number of its column",
                Labels::Listed(_) => "the label",
            },
        }),
        _ => Err(RowProblem::AmbiguousAnswer {
            answer: excerpt(answer, 60),
            meanings: meanings
                .iter()
                .map(|&(i, how)| format!("option {} (by its {how})", excerpt(&name(i), 10)))
                .collect::<Vec<_>>()
                .join(" or "),
            name: match labels {
                Labels::Listed(_) => "label",
                _ => "letter",
            },
        }),
    }
}

/// Equal but for letter case and the width of blanks.
pub(crate) fn same_text(a: &str, b: &str) -> bool {
    let fold = |s: &str| {
        s.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_lowercase()
    };
    a == b || fold(a) == fold(b)
}

/// A label at the start of `text`: the letter's index and what follows it.
/// A bare letter counts only when nothing follows.
pub(crate) fn leading_label(text: &str) -> Option<(usize, &str)> {
    let (bracket, rest) = match text.strip_prefix('(') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let letter = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    let index = usize::from(letter.to_ascii_uppercase() as u8 - b'A');
    let rest = &rest[1..];
    if rest.is_empty() {
        return (!bracket).then_some((index, ""));
    }
    let rest = if bracket {
        rest.strip_prefix(')')?
    } else {
        rest.strip_prefix([')', '.', ':'])?
    };
    // `A.B` or `a:b` is text, not a label.
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| (index, rest.trim_start()))
}

/// Removes `A)`, `B)`, .. where every option carries its own letter.
fn strip_labels(options: Vec<String>) -> Vec<String> {
    let labelled = options
        .iter()
        .enumerate()
        .all(|(i, o)| leading_label(o).is_some_and(|(index, rest)| index == i && !rest.is_empty()));
    if !labelled {
        return options;
    }
    options
        .iter()
        .filter_map(|o| leading_label(o))
        .map(|(_, rest)| rest.trim().to_string())
        .collect()
}

/// Lines that begin with A, B, C, ..; a line without a label continues its option.
fn labelled_lines(cell: &str) -> Option<Vec<String>> {
    let mut options: Vec<String> = Vec::new();
    for line in cell.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match leading_label(line) {
            Some((index, rest)) if index == options.len() => options.push(rest.to_string()),
            _ => {
                let open = options.last_mut()?;
                open.push('\n');
                open.push_str(line);
            }
        }
    }
    // One labelled line may hold all options: `A) x B) y`.
    (options.len() > 1).then_some(options)
}

/// `A) x B) y C) z` on one line: each label of the first one's form, in order.
fn inline_labels(cell: &str) -> Option<Vec<String>> {
    leading_label(cell).filter(|(index, _)| *index == 0)?;
    let bracket = cell.starts_with('(');
    let close = cell.chars().nth(if bracket { 2 } else { 1 })?;
    let upper = cell.trim_start_matches('(').starts_with('A');
    let label = |i: usize| {
        let letter = if upper {
            option_letter(i)
        } else {
            option_letter(i).to_ascii_lowercase()
        };
        if bracket {
            format!("({letter}{close}")
        } else {
            format!("{letter}{close}")
        }
    };
    let mut options = Vec::new();
    let mut rest = &cell[label(0).len()..];
    while options.len() < MAX_OPTIONS {
        let next = label(options.len() + 1);
        let found = rest.match_indices(&next).map(|(at, _)| at).find(|&at| {
            rest[..at].ends_with(|c: char| c.is_whitespace() || ",;/".contains(c))
                && rest[at + next.len()..].starts_with(char::is_whitespace)
        });
        let option = &rest[..found.unwrap_or(rest.len())];
        options.push(
            option
                .trim()
                .trim_end_matches([',', ';', '/'])
                .trim_end()
                .to_string(),
        );
        match found {
            Some(at) => rest = &rest[at + next.len()..],
            None => break,
        }
    }
    (options.len() > 1).then_some(options)
}

/// A JSON list or mapping, else a Python list or mapping literal, of scalars.
pub(super) fn literal_list(cell: &str) -> Option<Vec<String>> {
    match serde_json::from_str(cell) {
        Ok(list @ Value::Array(_)) => scalars(&list),
        Ok(Value::Object(map)) => in_letter_order(map.into_iter().collect(), |v| scalar(&v)),
        Ok(_) => None,
        Err(_) => python_list(cell),
    }
}

/// The values of a mapping whose keys are A, B, C, .. in that order.
fn in_letter_order<T>(
    pairs: Vec<(String, T)>,
    scalar: impl Fn(T) -> Option<String>,
) -> Option<Vec<String>> {
    let ordered = pairs.iter().enumerate().all(|(i, (k, _))| {
        i < MAX_OPTIONS && k.trim().eq_ignore_ascii_case(&option_letter(i).to_string())
    });
    if !ordered {
        return None;
    }
    pairs.into_iter().map(|(_, v)| scalar(v)).collect()
}

/// A Python list, tuple-free: `['a', "it's", 3]`, or a mapping `{'A': 'x', 'B': 'y'}`.
fn python_list(cell: &str) -> Option<Vec<String>> {
    let mapping = cell.starts_with('{');
    let mut chars = cell[1..cell.len() - 1].chars().peekable();
    let mut pairs: Vec<(String, String)> = Vec::new();
    loop {
        skip_blanks(&mut chars);
        if chars.peek().is_none() {
            break;
        }
        let mut key = String::new();
        if mapping {
            key = python_scalar(&mut chars)?;
            skip_blanks(&mut chars);
            if chars.next() != Some(':') {
                return None;
            }
            skip_blanks(&mut chars);
        }
        pairs.push((key, python_scalar(&mut chars)?));
        skip_blanks(&mut chars);
        match chars.next() {
            None => break,
            Some(',') => {}
            Some(_) => return None,
        }
    }
    if mapping {
        return in_letter_order(pairs, Some);
    }
    Some(pairs.into_iter().map(|(_, v)| v).collect())
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_blanks(chars: &mut Chars) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}

/// A quoted Python string with the common escapes, or a bare number.
fn python_scalar(chars: &mut Chars) -> Option<String> {
    let mut text = String::new();
    let Some(quote) = chars.next_if(|c| *c == '\'' || *c == '"') else {
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || "+-.eE_".contains(*c)) {
            text.push(c);
        }
        return text.parse::<f64>().is_ok().then_some(text);
    };
    loop {
        match chars.next()? {
            c if c == quote => return Some(text),
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                c @ ('x' | 'u' | 'U') => {
                    let digits = match c {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let code: String = chars.by_ref().take(digits).collect();
                    if code.len() != digits {
                        return None;
                    }
                    text.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                c @ ('\\' | '\'' | '"') => text.push(c),
                c => text.extend(['\\', c]),
            },
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(s: &[&str]) -> Vec<String> {
        s.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn every_form_of_options_reads_the_same() {
        let want = strings(&["Rome", "it's Oslo", "Lima, Peru"]);
        for cell in [
            r#"["Rome", "it's Oslo", "Lima, Peru"]"#,
            r#"['Rome', "it's Oslo", 'Lima, Peru']"#,
            r"['Rome', 'it\'s Oslo', 'Lima, Peru',]",
            r#"{"A": "Rome", "B": "it's Oslo", "C": "Lima, Peru"}"#,
            r#"{'A': 'Rome', 'B': "it's Oslo", 'C': 'Lima, Peru'}"#,
            "Rome | it's Oslo | Lima, Peru",
            "Rome|it's Oslo|Lima, Peru",
            "A) Rome\nB) it's Oslo\nC) Lima, Peru",
            "A. Rome\r\nB. it's Oslo\r\nC. Lima, Peru\r\n",
            "(a) Rome\n\n(b) it's Oslo\n(c) Lima, Peru",
            "A) Rome B) it's Oslo C) Lima, Peru",
            "A: Rome; B: it's Oslo; C: Lima, Peru",
            "(A) Rome (B) it's Oslo (C) Lima, Peru",
            "A) Rome | B) it's Oslo | C) Lima, Peru",
            "Rome\nit's Oslo\nLima, Peru",
            r#"["A. Rome", "B. it's Oslo", "C. Lima, Peru"]"#,
        ] {
            assert_eq!(parse_options(cell).unwrap(), want, "{cell}");
        }
        assert_eq!(
            parse_options("[1, 2.5, true]").unwrap(),
            strings(&["1", "2.5", "true"])
        );
        assert_eq!(
            parse_options(r"['caf\u00e9', '\x41']").unwrap(),
            strings(&["café", "A"])
        );
    }

    #[test]
    fn letters_inside_options_are_not_labels() {
        assert_eq!(
            parse_options("A) plan B. B) plan C: go").unwrap(),
            strings(&["plan B.", "plan C: go"])
        );
        assert_eq!(
            parse_options("x.y | A.B").unwrap(),
            strings(&["x.y", "A.B"])
        );
        assert_eq!(
            parse_options("A) one\ntwo\nB) three").unwrap(),
            strings(&["one\ntwo", "three"])
        );
    }

    #[test]
    fn bad_options_are_refused() {
        for cell in [
            "",
            "Rome",
            "['Rome'",
            "['Rome' 'Oslo']",
            "[['a'], 'b']",
            "[",
            "{",
            "{'B': 'x', 'C': 'y'}",
        ] {
            assert!(parse_options(cell).is_err(), "{cell}");
        }
        assert_eq!(
            parse_options("a | | c"),
            Err(RowProblem::EmptyOption { letter: 'B' })
        );
        assert_eq!(parse_options("['a']"), Err(RowProblem::OptionCount(1)));
    }

    #[test]
    fn random_cells_give_options_or_an_error() {
        let random = crate::rng::Stream::new(17, &[3]);
        let glyphs: Vec<char> = "ABab)(.:|,;[]{}'\"\\ux1 \né東".chars().collect();
        let mut read = 0;
        for case in 0..60_000u64 {
            let length = random.bits(case * 64) % 24;
            let cell: String = (1..=length)
                .map(|i| glyphs[(random.bits(case * 64 + i) % glyphs.len() as u64) as usize])
                .collect();
            if let Ok(options) = parse_options(&cell) {
                assert!((2..=MAX_OPTIONS).contains(&options.len()), "{cell:?}");
                assert!(
                    options.iter().all(|o| !o.is_empty() && o.trim() == o),
                    "{cell:?}"
                );
                if let Ok(index) = resolve_answer(&cell, &options, &Labels::None) {
                    assert!(index < options.len(), "{cell:?}");
                }
                read += 1;
            }
        }
        assert!(read > 5_000, "{read}");
    }

    #[test]
    fn answers_resolve_by_letter_index_and_text() {
        let options = strings(&["Rome", "Oslo", "Lima", "New  Delhi"]);
        for (answer, want) in [
            ("B", 1),
            ("b", 1),
            ("(B)", 1),
            ("B)", 1),
            ("B.", 1),
            ("B) Oslo", 1),
            ("0", 0),
            ("3", 3),
            (" lima ", 2),
            ("Rome", 0),
            ("new delhi", 3),
        ] {
            assert_eq!(
                resolve_answer(answer, &options, &Labels::None),
                Ok(want),
                "{answer}"
            );
        }
        for answer in ["E", "4", "-1", "Paris", "B) Lima", "Rom"] {
            assert!(
                matches!(
                    resolve_answer(answer, &options, &Labels::None),
                    Err(RowProblem::NoSuchOption { .. })
                ),
                "{answer}"
            );
        }
        assert_eq!(
            resolve_answer(" ", &options, &Labels::None),
            Err(RowProblem::EmptyField { field: "answer" })
        );
    }

    #[test]
    fn ambiguous_answers_are_refused_and_harmless_ones_are_not() {
        let numbers = strings(&["2", "1", "7"]);
        assert_eq!(resolve_answer("1", &numbers, &Labels::None), Ok(1));
        assert!(matches!(
            resolve_answer("2", &numbers, &Labels::None),
            Err(RowProblem::AmbiguousAnswer { .. })
        ));
        assert_eq!(resolve_answer("7", &numbers, &Labels::None), Ok(2));
        let letters = strings(&["B", "A"]);
        let message = resolve_answer("A", &letters, &Labels::None)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("option A (by its letter) or option B (by its text)"),
            "{message}"
        );
        let twins = strings(&["x", "x"]);
        assert!(matches!(
            resolve_answer("x", &twins, &Labels::None),
            Err(RowProblem::AmbiguousAnswer { .. })
        ));
        assert_eq!(resolve_answer("B", &twins, &Labels::None), Ok(1));
        // The exact spelling wins over one that differs in case.
        assert_eq!(
            resolve_answer("us", &strings(&["US", "us"]), &Labels::None),
            Ok(1)
        );
    }

    #[test]
    fn labels_of_the_data_come_before_an_index() {
        let options = strings(&["w", "x", "y", "1"]);
        for (answer, want) in [("1", 0), ("2", 1), ("B", 1), ("y", 2)] {
            let found = resolve_answer(answer, &options[..3], &Labels::FromOne);
            assert_eq!(found, Ok(want), "{answer}");
        }
        // The number of the first, the text of the last.
        assert!(resolve_answer("1", &options, &Labels::FromOne).is_err());
        let zero = resolve_answer("0", &options, &Labels::FromOne);
        assert_eq!(zero, Err(RowProblem::ZeroOfOne));
        let listed = |labels: &[&str]| Labels::Listed(strings(labels));
        for (labels, answer, want) in [
            (["1", "2", "3", "4"], "1", 0),
            (["1", "2", "3", "4"], "4", 3),
            (["B", "A", "D", "C"], "a", 1),
            (["B", "A", "D", "C"], "y", 2),
        ] {
            let found = resolve_answer(answer, &options, &listed(&labels));
            assert_eq!(found, Ok(want), "{labels:?} {answer}");
        }
        let choices = serde_json::json!({"text": ["x", "y"], "label": ["B", "A"]});
        let want = (strings(&["x", "y"]), strings(&["B", "A"]));
        assert_eq!(labelled(&choices), Some(want));
        let choices = serde_json::json!({"text": ["x"], "label": []});
        assert_eq!(labelled(&choices), None);
        let message = resolve_answer("A", &options, &listed(&["1", "2", "3", "4"]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("1) w") && message.contains("write the label"),
            "{message}"
        );
    }
}
