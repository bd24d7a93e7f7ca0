//! Scores of predictions, as fractions from 0 to 1.
//!
//! Exact match and F1 are those of the official SQuAD v1.1 script (Rajpurkar et
//! al., 2016): answers are normalised, and the best reference counts.

use std::collections::HashMap;

/// Lower case, without ASCII punctuation, without the words a, an and the, with
/// single blanks: in this order, as the official script has it.
pub fn normalize(answer: &str) -> String {
    let kept: String = answer
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let mut out = String::with_capacity(kept.len());
    for word in without_articles(&kept)
        .split(is_space)
        .filter(|w| !w.is_empty())
    {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Python's `str.isspace`, which also counts the ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Replaces the regular expression `\b(a|an|the)\b` by a blank. Words are runs of
/// letters and digits, so the article in `“the` goes too.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = first.is_alphanumeric();
        let end = rest
            .find(|c: char| c.is_alphanumeric() != word)
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push_str(if matches!(run, "a" | "an" | "the") {
            " "
        } else {
            run
        });
        rest = after;
    }
    out
}

/// 1 where the normalised answers are equal, else 0.
fn exact_match_one(prediction: &str, reference: &str) -> f64 {
    f64::from(u8::from(prediction == reference))
}

/// The harmonic mean of precision and recall over the normalised words.
fn f1_one(prediction: &str, reference: &str) -> f64 {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in reference.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    let mut same = 0usize;
    for word in prediction.split_whitespace() {
        if let Some(left) = counts.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let precision = same as f64 / prediction.split_whitespace().count() as f64;
    let recall = same as f64 / reference.split_whitespace().count() as f64;
    2.0 * precision * recall / (precision + recall)
}

fn best(prediction: &str, references: &[String], score: fn(&str, &str) -> f64) -> f64 {
    let prediction = normalize(prediction);
    references
        .iter()
        .map(|r| score(&prediction, &normalize(r)))
        .fold(0.0, f64::max)
}

/// Exact match with the best of `references`: 0 or 1. Without references, 0.
pub fn exact_match(prediction: &str, references: &[String]) -> f64 {
    best(prediction, references, exact_match_one)
}

/// 1 where the prediction is one of `references` but for case and the blanks around
/// them, else 0. Nothing else is normalised.
pub fn exact_match_ignore_case(prediction: &str, references: &[String]) -> f64 {
    let bare = |text: &str| text.trim().to_lowercase();
    let prediction = bare(prediction);
    f64::from(u8::from(references.iter().any(|r| bare(r) == prediction)))
}

/// Word F1 with the best of `references`, 0 to 1. Without references, 0.
pub fn f1(prediction: &str, references: &[String]) -> f64 {
    best(prediction, references, f1_one)
}

/// 1 where the right option was chosen, else 0.
pub fn accuracy(chosen: Option<usize>, right: usize) -> f64 {
    f64::from(u8::from(chosen == Some(right)))
}

/// The mean of the scores, or `None` without any.
pub fn mean(scores: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = scores
        .into_iter()
        .fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(r: &[&str]) -> Vec<String> {
        r.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn normalising_follows_the_official_order() {
        for (text, want) in [
            ("The  Cat", "cat"),
            ("a an the", ""),
            ("A.N. Other", "other"),
            ("theatre an-chor", "theatre anchor"),
            ("\u{201c}the end\u{201d}", "\u{201c} end\u{201d}"),
            ("U.S. $3.50", "us 350"),
            ("the_a", "thea"),
            ("x\u{1f}y\u{a0}z", "x y z"),
            ("Ünïcode THE Straße", "ünïcode straße"),
            ("a\u{2014}b", "\u{2014}b"),
            ("", ""),
        ] {
            assert_eq!(normalize(text), want, "{text:?}");
        }
    }

    #[test]
    fn the_best_reference_counts() {
        let r = refs(&["Denver Broncos", "the Broncos of Denver"]);
        assert_eq!(
            (
                exact_match("denver broncos.", &r),
                f1("denver broncos.", &r)
            ),
            (1.0, 1.0)
        );
        assert_eq!(exact_match("Broncos", &r), 0.0);
        assert!((f1("Broncos", &r) - 2.0 / 3.0).abs() < 1e-12);
        assert!(
            (f1("of denver denver", &r) - 2.0 * (2.0 / 3.0) * (2.0 / 3.0) / (4.0 / 3.0)).abs()
                < 1e-12
        );
        assert_eq!(
            (f1("", &r), exact_match("x", &[]), f1("x", &[])),
            (0.0, 0.0, 0.0)
        );
        // As the v1.1 script has it: two empty answers match, but share no word.
        assert_eq!(
            (exact_match("the", &refs(&["a"])), f1("the", &refs(&["a"]))),
            (1.0, 0.0)
        );
    }

    /// Cases scored by tests/python/squad_metric.py, to the last bit but one.
    #[test]
    fn a_thousand_random_answers_score_as_by_the_official_rule() {
        type Case = (String, Vec<String>, f64, f64);
        let text = include_str!("../../tests/fixtures/squad_metric.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 1000);
        for (prediction, references, exact, overlap) in &cases {
            let case = format!("{prediction:?} {references:?}");
            assert_eq!(exact_match(prediction, references), *exact, "{case}");
            assert!(
                (f1(prediction, references) - overlap).abs() < 1e-15,
                "{case}"
            );
        }
        let mean_of =
            |score: fn(&str, &[String]) -> f64| mean(cases.iter().map(|c| score(&c.0, &c.1)));
        assert_eq!(mean_of(exact_match), mean(cases.iter().map(|c| c.2)));
        assert!(cases.iter().filter(|c| c.3 > 0.0 && c.3 < 1.0).count() > 300);
    }

    #[test]
    fn ignoring_case_forgives_nothing_else() {
        let r = refs(&["The Cat.", "Élan"]);
        let score = |p: &str| exact_match_ignore_case(p, &r);
        assert_eq!((score(" the CAT. "), score("élan")), (1.0, 1.0));
        assert_eq!((score("cat"), score("the cat"), score("")), (0.0, 0.0, 0.0));
        assert_eq!(exact_match_ignore_case("x", &[]), 0.0);
    }

    #[test]
    fn accuracy_counts_missing_answers_as_wrong() {
        let pairs = [(Some(1), 1), (None, 0), (Some(2), 0), (Some(3), 3)];
        let scores = pairs.map(|(chosen, right)| accuracy(chosen, right));
        assert_eq!(scores, [1.0, 0.0, 0.0, 1.0]);
        assert_eq!((mean(scores), mean([])), (Some(0.5), None));
    }
}
