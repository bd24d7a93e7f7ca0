//! Replies of every shape, and the checks against slow and obvious ones.

use std::collections::HashSet;

use super::words::{content_words, numbers, says_no, word_pairs};
use super::*;
use crate::evaluate::metrics::normalize;
use crate::rng::Stream;

const WANTED: Wanted = Wanted {
    answers: 2,
    refusals: 1,
    corrections: 0,
};

fn pair(kind: Kind, question: &str, answer: &str) -> Pair {
    Pair {
        kind,
        question: question.to_string(),
        answer: answer.to_string(),
    }
}

const GOOD: &str = r#"{"pairs": [
    {"kind": "answer", "question": "What?", "answer": "That."},
    {"kind": "Refusal", "question": " Who? ", "answer": "It does not say."},
    {"kind": "answer", "question": "Where?", "answer": "There."}]}"#;

#[test]
fn replies_are_read_with_what_stands_around_them() {
    let expected = vec![
        pair(Kind::Answer, "What?", "That."),
        pair(Kind::Refusal, "Who?", "It does not say."),
        pair(Kind::Answer, "Where?", "There."),
    ];
    let list = GOOD
        .trim_start_matches("{\"pairs\": ")
        .trim_end_matches('}');
    for reply in [
        GOOD.to_string(),
        format!(
            "<think>{{\"pairs\": []}}?</think>Here you are [1]:\n```json\n{GOOD}\n```\nAnything else?"
        ),
        format!("{list}}}"),
    ] {
        assert_eq!(
            read_pairs(&reply, &WANTED),
            Ok((expected.clone(), 0)),
            "{reply}"
        );
    }
    // Too many are cut.
    let fewer = Wanted {
        answers: 1,
        ..WANTED
    };
    assert_eq!(read_pairs(GOOD, &fewer), Ok((expected[..2].to_vec(), 1)));
}

#[test]
fn malformed_replies_say_what_is_wrong_and_keep_what_is_right() {
    for (reply, why, usable) in [
        ("I cannot do that.", "no JSON object with a list `pairs`", 0),
        (
            &GOOD[..GOOD.len() - 4],
            "no JSON object with a list `pairs`",
            0,
        ),
        (
            r#"{"pairs": "none"}"#,
            "no JSON object with a list `pairs`",
            0,
        ),
        (r#"{"pairs": []}"#, "it has 0 of 2 pairs of kind answer", 0),
        (
            &GOOD.replace("Refusal", "answer"),
            "it has 0 of 1 pairs of kind refusal",
            2,
        ),
        (
            &GOOD.replace("Refusal", "maybe"),
            "pair 2: its kind is not",
            2,
        ),
        (&GOOD.replace("There.", "  "), "pair 3: it has no answer", 2),
        (
            &GOOD.replace("There.", "a<|user|>b"),
            "pair 3: its answer holds <|user|>",
            2,
        ),
        (
            &GOOD.replace("\"question\": \"Where?\", ", ""),
            "pair 3: it has no question",
            2,
        ),
    ] {
        let malformed = read_pairs(reply, &WANTED).unwrap_err();
        assert!(malformed.why.contains(why), "{why}: {malformed:?}");
        assert_eq!(malformed.usable.len(), usable, "{malformed:?}");
    }
}

#[test]
fn a_review_needs_a_verdict_on_each_pair() {
    let reply = r#"{"verdicts": [{"number": 2, "ok": false, "why": " It is made up. "},
                    {"number": 1, "ok": true, "why": "fine"}]}"#;
    let made_up = Some("It is made up.".to_string());
    assert_eq!(read_review(reply, 2), Ok(vec![None, made_up]));
    for (count, why) in [(3, "no verdict on pair 3"), (1, "`number` from 1 to 1")] {
        assert!(read_review(reply, count).unwrap_err().contains(why));
    }
    assert!(
        read_review("All fine.", 2)
            .unwrap_err()
            .contains("`verdicts`")
    );
    let text = r#"{"verdicts": [{"number": 1, "ok": "yes"}]}"#;
    assert!(read_review(text, 1).unwrap_err().contains("true or false"));
}

#[test]
fn the_chats_ask_for_what_is_wanted() {
    let text = |chat: &[serde_json::Value]| {
        chat.last().unwrap()["content"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let asked = text(&write_chat("The text.", &WANTED));
    assert!(asked.contains("- 2 of kind \"answer\"") && asked.contains("- 1 of kind \"refusal\""));
    assert!(!asked.contains("correction"));
    assert!(asked.ends_with("Abstract:\nThe text."));
    let chat = again(write_chat("The text.", &WANTED), "bad", "it has no JSON");
    assert_eq!(chat.len(), 4);
    assert_eq!(chat[2]["content"], "bad");
    assert!(text(&chat).contains("it has no JSON"));
    let review = text(&review_chat("The text.", &[pair(Kind::Answer, "Q1", "A1")]));
    assert!(review.contains("1. kind answer\nQuestion: Q1\nAnswer: A1"));
    let one = pair(Kind::Answer, "Q?", "A.");
    assert_eq!(
        row(Some("S"), Some("C"), &one),
        "<|system|>S<|user|>C\n\nQ?<|assistant|>A."
    );
    assert_eq!(row(None, None, &one), "<|user|>Q?<|assistant|>A.");
}

#[test]
fn numbers_are_compared_by_value() {
    assert_eq!(
        numbers("In 1,000,000 runs (97.50 %), GPT-2 took 007 s, 1,2 and 3.14.15; two of 0.5."),
        [
            "1000000", "97.5", "2", "7", "1", "2", "3.14", "15", "0.5", "2"
        ]
    );
    assert_eq!(numbers("2.0 and 2"), ["2", "2"]);
    assert_eq!(numbers("none; 0 0.0"), ["0", "0"]);
}

#[test]
fn words_lose_endings_and_small_words() {
    assert_eq!(
        content_words("The model's improvements improved; it IMPROVES studies of 5 runs."),
        ["model", "improvement", "improv", "improv", "stud", "runs"].map(str::to_string)
    );
    assert_eq!(
        content_words("量子計算"),
        ["量", "子", "計", "算"].map(str::to_string)
    );
    for no in [
        "It does not say.",
        "That isn't given",
        "It doesn’t.",
        "Unknown.",
        "No.",
    ] {
        assert!(says_no(no), "{no}");
    }
    assert!(!says_no("It was Ada Lovelace, a notable innovator."));
}

#[test]
fn an_answer_must_stand_on_its_abstract() {
    let text =
        "We train 12 small transformers on weather reports and find that accuracy rises to 87.5 %.";
    let ok =
        |kind, question: &str, answer: &str| grounded(text, &pair(kind, question, answer), 0.6);
    assert_eq!(
        ok(
            Kind::Answer,
            "How many?",
            "Twelve transformers were trained."
        ),
        Ok(())
    );
    assert_eq!(
        ok(
            Kind::Answer,
            "How accurate?",
            "The accuracy rises to 87.5 percent."
        ),
        Ok(())
    );
    assert_eq!(ok(Kind::Answer, "How many?", "It was 12."), Ok(()));
    let number = ok(Kind::Answer, "How accurate?", "The accuracy rises to 88 %.");
    assert_eq!(
        number,
        Err("the number 88 is not in the abstract".to_string())
    );
    let words = ok(
        Kind::Answer,
        "What?",
        "Large convolutional networks classify satellite images by accuracy.",
    );
    assert_eq!(
        words,
        Err("1 of 7 content words are in the abstract".to_string())
    );
    // What only the question says does not ground an answer, but a correction repeats it.
    let (question, answer) = (
        "Why were 30 recurrent networks trained?",
        "Not 30 recurrent networks, but 12 transformers.",
    );
    assert!(ok(Kind::Answer, question, answer).is_err());
    assert_eq!(ok(Kind::Correction, question, answer), Ok(()));
    assert!(
        ok(
            Kind::Correction,
            question,
            "Not 30 recurrent networks, but 13."
        )
        .is_err()
    );
    assert_eq!(
        ok(
            Kind::Refusal,
            "Who paid?",
            "The text does not say who funded the work."
        ),
        Ok(())
    );
    assert!(
        ok(Kind::Refusal, "Who paid?", "A foundation did.")
            .unwrap_err()
            .contains("does not say no")
    );
    assert!(
        ok(
            Kind::Refusal,
            "Who paid?",
            "It does not say, but 500 euros."
        )
        .is_err()
    );
    assert_eq!(
        grounded(text, &pair(Kind::Answer, "?", "99 balloons"), 0.0),
        Ok(())
    );
}

/// Every question against every one that was kept before.
fn slow(questions: &[String], most: f64) -> Vec<Option<Same>> {
    let mut kept: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for question in questions {
        let normal = normalize(question);
        let mine: HashSet<String> = word_pairs(&normal);
        let mut likest: Option<Same> = None;
        for (earlier, other) in kept.iter().enumerate() {
            let theirs = word_pairs(other);
            let shared = mine.intersection(&theirs).count();
            let all = mine.union(&theirs).count();
            let overlap = match *other == normal {
                true => 1.0,
                false if all == 0 => 0.0,
                false => shared as f64 / all as f64,
            };
            if likest.as_ref().is_none_or(|l| overlap > l.overlap) {
                likest = Some(Same { earlier, overlap });
            }
        }
        let equal = kept.iter().position(|k| *k == normal);
        let same = match equal {
            Some(earlier) => Some(Same {
                earlier,
                overlap: 1.0,
            }),
            None => likest.filter(|l| l.overlap > most),
        };
        if same.is_none() {
            kept.push(normal);
        }
        found.push(same);
    }
    found
}

#[test]
fn near_duplicates_are_those_that_a_slow_search_finds() {
    let seed = std::env::var("KILN_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("KILN_TEST_SEED={seed}");
    let words = [
        "what", "is", "the", "main", "result", "of", "this", "work", "data", "Used?",
    ];
    for case in 0..200u64 {
        let random = Stream::new(seed, &[0xD0B, case]);
        let mut counter = 0;
        let mut draw = |below: u64| {
            counter += 1;
            random.bits(counter) % below
        };
        let questions: Vec<String> = (0..30)
            .map(|_| {
                let length = draw(7);
                let words: Vec<&str> = (0..length).map(|_| words[draw(10) as usize]).collect();
                words.join(" ")
            })
            .collect();
        let most = [0.3, 0.5, 0.7, 1.0][case as usize % 4];
        let mut kept = Questions::default();
        let found: Vec<Option<Same>> = questions.iter().map(|q| kept.add(q, most).err()).collect();
        assert_eq!(found, slow(&questions, most), "case {case}");
    }
}

#[test]
fn a_changed_word_is_a_near_duplicate_and_another_question_is_not() {
    let mut kept = Questions::default();
    let first = "What accuracy does the small transformer reach on weather reports?";
    assert_eq!(kept.add(first, 0.7), Ok(()));
    let same = |earlier, overlap| Err(Same { earlier, overlap });
    assert_eq!(
        kept.add(
            "what accuracy does small transformer reach on weather reports",
            0.7
        ),
        same(0, 1.0)
    );
    let near = "What accuracy does the small transformer reach on weather reports now?";
    assert_eq!(kept.add(near, 0.7), same(0, 8.0 / 9.0));
    assert_eq!(
        kept.add("Which optimiser trains the transformer?", 0.7),
        Ok(())
    );
}
