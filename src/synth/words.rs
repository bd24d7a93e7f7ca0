//! Texts as words and numbers, for the checks. The lists are English; other languages
//! lose the stop words' help, not the comparison.

use std::collections::HashSet;

/// Words that say nothing of a text's subject.
const STOP: &str = "a about above after again against all also although am among an and any are as at \
be because been before being below between both but by can cannot could did do does doing down \
during each either else for from further had has have having he her here hers him his how however \
i if in into is it its itself just like many may me might more most much must my neither no nor \
not now of off on once one only or other our out over own per rather same say says said she \
should so some such than that the their them themselves then there therefore these they this \
those through thus to too under until up upon us use used using very via was we were what when \
where whether which while who whom whose why will with within without would yes yet you your \
percent abstract paper study text author authors describe describes described mention mentions mentioned";

/// Words that say no, without their endings.
const NO: [&str; 16] = [
    "no",
    "not",
    "none",
    "nothing",
    "nor",
    "never",
    "neither",
    "cannot",
    "without",
    "unknown",
    "unclear",
    "unspecified",
    "unable",
    "undisclosed",
    "omits",
    "lacks",
];

const NUMBERS: [&str; 19] = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Words in lower case: runs of letters and digits. A character of a script that is
/// written without blanks is a word of its own.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let alone = matches!(c as u32, 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xAC00..=0xD7AF);
        if alone || !c.is_alphanumeric() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if alone {
                words.push(c.to_string());
            }
        } else {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words that carry a text's content, without endings; numbers are not among them.
pub(super) fn content_words(text: &str) -> Vec<String> {
    let stop: HashSet<&str> = STOP.split_whitespace().collect();
    let is_number = |w: &str| w.starts_with(|c: char| c.is_ascii_digit()) || NUMBERS.contains(&w);
    words(text)
        .into_iter()
        .filter(|w| !stop.contains(w.as_str()) && !is_number(w))
        // `s` of a genitive, `t` of a short form.
        .filter(|w| w.len() > 1)
        .map(|w| stem(&w).to_string())
        .collect()
}

/// The word without a usual ending, so that `improves` is `improved`. Meant for
/// comparison only: what is left need not be a word.
fn stem(word: &str) -> &str {
    let cut = [
        "ations", "ation", "ing", "ies", "ied", "edly", "ed", "es", "ly", "s",
    ]
    .into_iter()
    .find_map(|end| {
        word.strip_suffix(end)
            .filter(|rest| rest.chars().count() >= 4)
    })
    .unwrap_or(word);
    match cut.strip_suffix(['e', 'y']) {
        Some(rest) if rest.chars().count() >= 4 => rest,
        _ => cut,
    }
}

/// The numbers of a text in one spelling: without thousands separators, signs and
/// closing zeros; `two` to `twenty` as digits.
pub(super) fn numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let mut at = 0;
    while at < bytes.len() {
        if !digit(at) {
            at += 1;
            continue;
        }
        let begin = at;
        let mut point = false;
        loop {
            let three = digit(at + 1) && digit(at + 2) && digit(at + 3) && !digit(at + 4);
            match bytes.get(at) {
                Some(b) if b.is_ascii_digit() => at += 1,
                Some(b',') if three && !point => at += 1,
                Some(b'.') if digit(at + 1) && !point => {
                    point = true;
                    at += 1;
                }
                _ => break,
            }
        }
        found.push(plain_number(&text[begin..at]));
    }
    let spelt = words(text).into_iter().filter_map(|word| {
        let at = NUMBERS.iter().position(|n| *n == word)?;
        Some((at + 2).to_string())
    });
    found.extend(spelt);
    found
}

fn plain_number(text: &str) -> String {
    let text = text.replace(',', "");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    match text.trim_start_matches('0') {
        "" => "0".to_string(),
        rest if rest.starts_with('.') => format!("0{rest}"),
        rest => rest.to_string(),
    }
}

/// Whether a text says that something is not so, or not known.
pub(super) fn says_no(text: &str) -> bool {
    let lower = text.to_lowercase().replace('’', "'");
    lower.contains("n't") || words(&lower).iter().any(|w| NO.contains(&w.as_str()))
}

/// The pairs of neighbouring words; a text of one word is that word.
pub(super) fn word_pairs(text: &str) -> HashSet<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.len() {
        0 | 1 => words.iter().map(ToString::to_string).collect(),
        _ => words.windows(2).map(|pair| pair.join(" ")).collect(),
    }
}
