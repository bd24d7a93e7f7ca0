//! Whether generated text has the form that its task asks for.

use crate::config::types::TaskKind;
use crate::data::option_letter;
use crate::data::options::{leading_label, same_text};

/// Whether `text` is an answer at all: for multiple choice it must name one of
/// `options`, for a short answer it must not be blank; other text always is.
pub fn is_valid(kind: TaskKind, text: &str, options: &[String]) -> bool {
    match kind {
        TaskKind::Mcq => chosen_option(text, options).is_some(),
        TaskKind::Saq => !text.trim().is_empty(),
        TaskKind::Text => true,
    }
}

/// The index of the option that `text` names, or `None`. In this order:
///
/// 1. it begins with a letter alone or a label: `B`, `(b)`, `B)`, `B. Rome`;
/// 2. a letter, or the text of one option, follows `answer`, `option` or `choice`:
///    `The answer is B.`;
/// 3. its first line is the text of one option;
/// 4. just one capital letter of an option stands alone in it (but not the
///    article of `A bridge`).
pub fn chosen_option(text: &str, options: &[String]) -> Option<usize> {
    let count = options.len();
    let text = text
        .trim()
        .trim_start_matches(['*', '_', '`', '"', '\'', '['])
        .trim_start();
    if let Some(index) = label_at_start(text).filter(|i| *i < count) {
        return Some(index);
    }
    if let Some(index) = after_keyword(text, options) {
        return Some(index);
    }
    match equal_options(text, options)[..] {
        [] => lone_capital(text, count),
        [index] => Some(index),
        _ => None,
    }
}

/// The options whose text is the first line of `text`.
fn equal_options(text: &str, options: &[String]) -> Vec<usize> {
    let line = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .trim_end_matches('.');
    (0..options.len())
        .filter(|&i| same_text(options[i].trim_end_matches('.'), line))
        .collect()
}

fn label_at_start(text: &str) -> Option<usize> {
    if let Some((index, _)) = leading_label(text) {
        return Some(index);
    }
    // A letter and then the end of the line, or a mark that is no part of a word.
    let mut chars = text.chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?;
    let next = chars.next()?;
    let ends = next == '\n' || next == '\r' || "*`\",;]<|_".contains(next);
    (ends || chars.as_str().is_empty() && next == '.').then(|| letter_index(letter))
}

fn letter_index(letter: char) -> usize {
    usize::from(letter.to_ascii_uppercase() as u8 - b'A')
}

/// Words of letters, digits and apostrophes, with the text after each.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let in_word = |c: char| c.is_alphanumeric() || c == '\'' || c == '\u{2019}';
        rest = &rest[rest.find(in_word)?..];
        let (word, after) = rest.split_at(rest.find(|c| !in_word(c)).unwrap_or(rest.len()));
        rest = after;
        Some((word, after))
    })
}

/// One letter of an option, as a whole word.
fn option_word(word: &str, count: usize) -> Option<usize> {
    let letter = word
        .chars()
        .next()
        .filter(|c| word.len() == 1 && c.is_ascii_alphabetic())?;
    Some(letter_index(letter)).filter(|i| *i < count)
}

/// An article, not a letter: `a` before another word.
fn is_article(word: &str, after: &str) -> bool {
    word.eq_ignore_ascii_case("a")
        && after.starts_with(' ')
        && after.trim_start().starts_with(char::is_alphabetic)
}

/// Words that may stand between a keyword and its letter.
const BETWEEN: [&str; 9] = [
    "is", "would", "be", "must", "should", "the", "correct", "option", "letter",
];

/// What follows the last keyword that an option follows.
fn after_keyword(text: &str, options: &[String]) -> Option<usize> {
    let mut found = None;
    let mut open = false;
    for (word, after) in words(text) {
        let is = |k: &&str| word.eq_ignore_ascii_case(k);
        if ["answer", "option", "choice"].iter().any(is) {
            open = true;
        } else if open {
            let from_word = &text[text.len() - after.len() - word.len()..];
            let article = word == "a" && is_article(word, after);
            open = false;
            if let [index] = equal_options(from_word, options)[..] {
                found = Some(index);
            } else if let Some(index) = option_word(word, options.len()).filter(|_| !article) {
                found = Some(index);
            } else {
                open = BETWEEN.iter().any(is);
            }
        }
    }
    found
}

/// The one capital letter among A.. that stands alone in `text`.
fn lone_capital(text: &str, count: usize) -> Option<usize> {
    let mut found = None;
    for (word, after) in words(text) {
        let Some(index) = option_word(word, count) else {
            continue;
        };
        let capital = word.starts_with(option_letter(index));
        if !capital || is_article(word, after) || found == Some(index) {
            continue;
        }
        if found.is_some() {
            return None;
        }
        found = Some(index);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Vec<String> {
        ["Rome", "Oslo", "A bridge", "New Delhi."]
            .map(str::to_string)
            .to_vec()
    }

    #[test]
    fn letters_are_found_in_many_answers() {
        for (text, want) in [
            ("B", 1),
            (" b ", 1),
            ("B)", 1),
            ("(B)", 1),
            ("B.", 1),
            ("B) Oslo", 1),
            ("B: Oslo", 1),
            ("**B**", 1),
            ("B\nBecause", 1),
            ("B, since", 1),
            ("\"B\"", 1),
            ("Answer: B", 1),
            ("answer: (d)", 3),
            ("The answer is C.", 2),
            ("The correct answer would be the option D", 3),
            ("Option A is right", 0),
            ("I think it must be B.", 1),
            ("Oslo", 1),
            ("oslo.", 1),
            ("A bridge", 2),
            ("New Delhi", 3),
            ("Is it A? no, answer: B", 1),
            ("C</s>", 2),
            ("It is A", 0),
            ("Answer: A bridge", 2),
            ("The answer is Oslo.", 1),
        ] {
            assert_eq!(chosen_option(text, &options()), Some(want), "{text:?}");
        }
    }

    #[test]
    fn other_answers_name_no_option() {
        for text in [
            "",
            "  ",
            "E",
            "(F)",
            "A tower",
            "Berlin",
            "B or C",
            "I do not know",
            "answer: E",
            "abc",
            "because",
        ] {
            assert_eq!(chosen_option(text, &options()), None, "{text:?}");
        }
        let twins = ["same", "same"].map(str::to_string);
        assert_eq!(chosen_option("same", &twins), None);
        assert_eq!(chosen_option("B", &[]), None);
    }

    #[test]
    fn random_text_names_an_option_there_is_or_none() {
        let random = crate::rng::Stream::new(8, &[1]);
        let pieces = [
            "A", "b", "E", "answer", "option", "is", "the", "Oslo", " ", " ", ".", ")", "(", ":",
            "\n", "*", "é", "東",
        ];
        let mut found = 0;
        for case in 0..30_000u64 {
            let text: String = (1..=random.bits(case * 16) % 9)
                .map(|i| pieces[(random.bits(case * 16 + i) % pieces.len() as u64) as usize])
                .collect();
            let index = chosen_option(&text, &options());
            assert!(index.is_none_or(|i| i < 4), "{text:?}");
            found += usize::from(index.is_some());
        }
        assert!((2_000..10_000).contains(&found), "{found}");
    }

    #[test]
    fn each_task_has_its_rule() {
        assert!(
            is_valid(TaskKind::Mcq, "A", &options()) && !is_valid(TaskKind::Mcq, "E", &options())
        );
        assert!(is_valid(TaskKind::Saq, "x", &[]) && !is_valid(TaskKind::Saq, " \n", &[]));
        assert!(is_valid(TaskKind::Text, "", &[]));
    }
}
