//! A model as judge of two answers: what it is asked, how its verdicts are read, and
//! the share of questions that one side wins. Knows nothing of files or of who judges.
//!
//! Judges favour an answer for where it stands, so each pair is judged in both orders
//! and only a verdict that holds in both counts as won or lost (Zheng et al., 2023,
//! "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4). The share is
//! raw: it is not corrected for length as AlpacaEval 2's is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ask::without_thoughts;
use crate::data::chat::message;

/// Changes with the wording below: verdicts on other words are not mixed with these.
pub const PROMPTS: u32 = 1;

/// Which of two answers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    First,
    Second,
    Tie,
}

/// What both orders say of an answer beside its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Win,
    Loss,
    /// Neither is better, in both orders.
    Tie,
    /// The orders differ.
    Contradiction,
}

impl Outcome {
    /// `ours_first` was given with the answer in first place, `ours_second` with it in
    /// second place.
    pub fn new(ours_first: Verdict, ours_second: Verdict) -> Self {
        match (ours_first, ours_second) {
            (Verdict::First, Verdict::Second) => Outcome::Win,
            (Verdict::Second, Verdict::First) => Outcome::Loss,
            (Verdict::Tie, Verdict::Tie) => Outcome::Tie,
            _ => Outcome::Contradiction,
        }
    }

    /// 1, 0, or a half for ties and contradictions.
    pub fn score(self) -> f64 {
        match self {
            Outcome::Win => 1.0,
            Outcome::Loss => 0.0,
            Outcome::Tie | Outcome::Contradiction => 0.5,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Outcome::Win => "win",
            Outcome::Loss => "loss",
            Outcome::Tie => "tie",
            Outcome::Contradiction => "contradiction",
        }
    }
}

/// Asks which of two answers to a question is better.
pub fn chat(question: &str, context: Option<&str>, first: &str, second: &str) -> Vec<Value> {
    let shown = |text: &str| match text.trim() {
        "" => "(empty)".to_string(),
        text => text.to_string(),
    };
    let context = context.map_or(String::new(), |text| format!("\n\n<text>\n{text}\n</text>"));
    let task = format!(
        "Two assistants were given this task.\n\n<task>\n{}\n</task>{context}\n\n\
         <answer_A>\n{}\n</answer_A>\n\n<answer_B>\n{}\n</answer_B>\n\n\
         Which answer does the task better? Weigh whether it is right, whether it does what was \
         asked, and whether it helps; neither length nor order nor style counts by itself. Say \
         briefly why, then end with one of these on a line of its own: [[A]] if A is better, \
         [[B]] if B is better, [[tie]] if neither is.",
        question.trim(),
        shown(first),
        shown(second)
    );
    vec![
        message(
            "system",
            "You compare answers of assistants, strictly and fairly.",
        ),
        message("user", &task),
    ]
}

/// The verdict of a reply: the last one in double brackets, or a reply that is nothing
/// but a verdict. `None` where there is none.
pub fn read(reply: &str) -> Option<Verdict> {
    let text = without_thoughts(reply);
    let word = |word: &str| match word.trim().to_ascii_lowercase().as_str() {
        "a" => Some(Verdict::First),
        "b" => Some(Verdict::Second),
        "tie" => Some(Verdict::Tie),
        _ => None,
    };
    let bracketed = text.rmatch_indices("[[").find_map(|(at, _)| {
        let (inside, _) = text[at + 2..].split_once("]]")?;
        word(inside)
    });
    bracketed.or_else(|| word(text.trim_matches(|c: char| !c.is_alphanumeric())))
}

/// Outcomes counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub wins: usize,
    pub losses: usize,
    pub ties: usize,
    pub contradictions: usize,
}

impl Tally {
    pub fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            *match outcome {
                Outcome::Win => &mut tally.wins,
                Outcome::Loss => &mut tally.losses,
                Outcome::Tie => &mut tally.ties,
                Outcome::Contradiction => &mut tally.contradictions,
            } += 1;
        }
        tally
    }

    pub fn questions(&self) -> usize {
        self.wins + self.losses + self.ties + self.contradictions
    }

    /// Mean score, 0 to 1; `None` without questions.
    pub fn win_rate(&self) -> Option<f64> {
        let n = self.questions();
        let halves = self.ties + self.contradictions;
        (n > 0).then(|| (self.wins as f64 + 0.5 * halves as f64) / n as f64)
    }

    /// Standard error of [`Tally::win_rate`]: the sample's standard deviation over the
    /// root of the questions. `None` below two questions.
    pub fn standard_error(&self) -> Option<f64> {
        let n = self.questions() as f64;
        let mean = self.win_rate().filter(|_| n >= 2.0)?;
        let halves = (self.ties + self.contradictions) as f64;
        let squares = self.wins as f64 * (1.0 - mean).powi(2)
            + self.losses as f64 * mean.powi(2)
            + halves * (0.5 - mean).powi(2);
        Some((squares / (n - 1.0) / n).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_where_they_stand() {
        for (reply, verdict) in [
            ("[[A]]", Some(Verdict::First)),
            ("B is right and A is not.\n[[B]]", Some(Verdict::Second)),
            ("It could be [[A]], but no: [[ tie ]].", Some(Verdict::Tie)),
            ("<think>[[A]]?</think>[[b]]", Some(Verdict::Second)),
            (" **B** ", Some(Verdict::Second)),
            ("Tie.", Some(Verdict::Tie)),
            ("[[A]] or whatever [[C]]", Some(Verdict::First)),
            ("Answer A is better.", None),
            ("[[A", Some(Verdict::First)),
            ("[[A better answer", None),
            ("", None),
            ("<think>[[A]]", None),
        ] {
            assert_eq!(read(reply), verdict, "{reply}");
        }
    }

    #[test]
    fn both_orders_must_agree() {
        use Verdict::{First, Second, Tie};
        for (ours_first, ours_second, outcome) in [
            (First, Second, Outcome::Win),
            (Second, First, Outcome::Loss),
            (Tie, Tie, Outcome::Tie),
            (First, First, Outcome::Contradiction),
            (Second, Second, Outcome::Contradiction),
            (First, Tie, Outcome::Contradiction),
            (Tie, First, Outcome::Contradiction),
        ] {
            assert_eq!(Outcome::new(ours_first, ours_second), outcome);
        }
    }

    #[test]
    fn the_rate_and_its_error_are_those_of_the_scores() {
        let kinds = [
            Outcome::Win,
            Outcome::Loss,
            Outcome::Tie,
            Outcome::Contradiction,
        ];
        let stream = crate::rng::Stream::new(u64::from(std::process::id()), &[1]);
        for case in 0..50u64 {
            let n = 2 + stream.bits(case) % 40;
            let draw = |i: u64| kinds[(stream.bits(1000 + 64 * case + i) % 4) as usize];
            let outcomes: Vec<Outcome> = (0..n).map(draw).collect();
            let scores: Vec<f64> = outcomes.iter().map(|o| o.score()).collect();
            let tally = Tally::new(outcomes);
            let n = n as f64;
            let mean = scores.iter().sum::<f64>() / n;
            let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
            assert!((tally.win_rate().unwrap() - mean).abs() < 1e-12);
            assert!((tally.standard_error().unwrap() - (variance / n).sqrt()).abs() < 1e-12);
        }
        assert_eq!(Tally::default().win_rate(), None);
        assert_eq!(Tally::new([Outcome::Win]).win_rate(), Some(1.0));
        assert_eq!(Tally::new([Outcome::Win]).standard_error(), None);
    }

    #[test]
    fn the_judge_sees_task_text_and_both_answers() {
        let chat = chat("Name it.", Some("A text."), "One", "");
        let text = chat[1]["content"].as_str().unwrap_or_default();
        for part in [
            "<task>\nName it.\n</task>",
            "<text>\nA text.\n</text>",
            "<answer_A>\nOne\n",
            "<answer_B>\n(empty)\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
