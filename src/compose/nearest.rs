//! The nearest name to a misspelt one.

/// The candidate closest to `word`, or `None` when all are too far to be a typo
/// of it. Distance is Damerau-Levenshtein (optimal string alignment) over
/// lower-cased characters; up to a third of the longer word may differ, and at
/// least one character of it.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(MAX_LENGTH).collect();
    if word.is_empty() {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.to_lowercase().chars().take(MAX_LENGTH).collect();
        let longer = word.len().max(other.len());
        let allowed = (longer / 3).clamp(1, 4);
        if word.len().abs_diff(other.len()) > allowed || other.is_empty() {
            continue;
        }
        let distance = distance(&word, &other);
        // One-letter words differ from each other completely.
        if distance <= allowed && distance < longer && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are cut: the table is quadratic.
const MAX_LENGTH: usize = 128;

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut rows = vec![0usize; (a.len() + 1) * width];
    for (j, cell) in rows[..width].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        rows[i * width] = i;
        for j in 1..width {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[(i - 1) * width + j] + 1)
                .min(rows[i * width + j - 1] + 1)
                .min(rows[(i - 1) * width + j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[(i - 2) * width + j - 2] + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(word: &str, list: &[&'static str]) -> Option<&'static str> {
        nearest(word, list.iter().copied())
    }

    #[test]
    fn finds_typos() {
        let keys = ["learning_rate", "epochs", "batch_size", "max_steps"];
        assert_eq!(near("learnign_rate", &keys), Some("learning_rate"));
        assert_eq!(near("epoch", &keys), Some("epochs"));
        assert_eq!(near("Batch_Size", &keys), Some("batch_size"));
        assert_eq!(near("lr", &["r", "alpha"]), Some("r"));
    }

    #[test]
    fn refuses_what_is_no_typo() {
        assert_eq!(near("quantization", &["epochs", "seed"]), None);
        assert_eq!(near("x", &["y"]), None);
        assert_eq!(near("", &["a"]), None);
    }

    #[test]
    fn a_swap_counts_as_one() {
        let a: Vec<char> = "sede".chars().collect();
        let b: Vec<char> = "seed".chars().collect();
        assert_eq!(distance(&a, &b), 1);
    }
}
