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
    let of_word = letters(&word);
    let mut best: Option<(usize, &str)> = None;
    let mut other = Vec::new();
    let mut rows = Rows::default();
    for candidate in candidates {
        other.clear();
        other.extend(
            candidate
                .chars()
                .flat_map(char::to_lowercase)
                .take(MAX_LENGTH),
        );
        let longer = word.len().max(other.len());
        // One-letter words differ from each other completely.
        let mut most = (longer / 3).clamp(1, 4).min(longer - 1);
        if let Some((distance, _)) = best {
            let Some(closer) = distance.checked_sub(1) else {
                break;
            };
            most = most.min(closer);
        }
        if other.is_empty() || word.len().abs_diff(other.len()) > most {
            continue;
        }
        // A change of one letter for another adds one and takes one, the others less.
        if (of_word ^ letters(&other)).count_ones() as usize > 2 * most {
            continue;
        }
        if let Some(distance) = rows.distance(&word, &other, most) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are cut: the table is quadratic.
const MAX_LENGTH: usize = 128;

/// A bit for each letter of a word, of which some share one.
fn letters(word: &[char]) -> u64 {
    word.iter()
        .fold(0, |bits, letter| bits | 1 << (*letter as u32 % 64))
}

/// The last three rows of the table of distances between beginnings.
#[derive(Default)]
struct Rows([Vec<usize>; 3]);

impl Rows {
    /// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into
    /// `b`; `None` where it takes more than `most`.
    fn distance(&mut self, a: &[char], b: &[char], most: usize) -> Option<usize> {
        let [before, last, row] = &mut self.0;
        before.clear();
        last.clear();
        last.extend(0..=b.len());
        let mut least = [0; 2];
        for i in 1..=a.len() {
            row.clear();
            row.push(i);
            for j in 1..=b.len() {
                let cost = usize::from(a[i - 1] != b[j - 1]);
                let mut cell = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    cell = cell.min(before[j - 2] + 1);
                }
                row.push(cell);
            }
            // A cell is no less than the least of the two rows above.
            least = [least[1], row.iter().copied().min().unwrap_or(0)];
            if least.iter().all(|least| *least > most) {
                return None;
            }
            std::mem::swap(before, last);
            std::mem::swap(last, row);
        }
        last.last().copied().filter(|distance| *distance <= most)
    }
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
        assert_eq!(Rows::default().distance(&a, &b, 4), Some(1));
    }

    /// The whole table.
    fn slow(a: &[char], b: &[char]) -> usize {
        let width = b.len() + 1;
        let mut table = vec![0; (a.len() + 1) * width];
        for i in 0..=a.len() {
            for j in 0..width {
                table[i * width + j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let replaced = usize::from(a[i - 1] != b[j - 1]);
                    let mut least = table[(i - 1) * width + j - 1] + replaced;
                    least = least.min(table[(i - 1) * width + j] + 1);
                    least = least.min(table[i * width + j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(table[(i - 2) * width + j - 2] + 1);
                    }
                    least
                };
            }
        }
        table[a.len() * width + b.len()]
    }

    #[test]
    fn distances_are_those_of_the_whole_table() {
        let stream = crate::rng::Stream::new(3, &[]);
        let mut drawn = (0..).map(|i| stream.uniform(i));
        let mut word = |least: f64| -> Vec<char> {
            let length = least + 7.0 * f64::from(drawn.next().unwrap());
            let letters = drawn.by_ref().take(length as usize);
            letters
                .map(|x| {
                    if x < 0.4 {
                        'a'
                    } else if x < 0.8 {
                        'b'
                    } else {
                        'c'
                    }
                })
                .collect()
        };
        let mut rows = Rows::default();
        for _ in 0..5_000 {
            let (a, b) = (word(1.0), word(1.0));
            let want = slow(&a, &b);
            assert!((letters(&a) ^ letters(&b)).count_ones() as usize <= 2 * want);
            for most in 0..5 {
                let got = rows.distance(&a, &b, most);
                assert_eq!(got, (want <= most).then_some(want), "{a:?} {b:?}");
            }
        }
    }
}
