//! The shipped tasks are fair: test facts never occur in training, every
//! answer follows from its own context, and the right letter is no give-away.

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};

/// (attribute, name, value)
type Fact = (String, String, String);
type Row = (Vec<Fact>, Fact, Vec<String>, String);

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(file)
}

/// Facts in the context, the fact asked for (its value is the reference answer),
/// the options, the letter.
fn rows(file: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut reader = csv::Reader::from_path(data(file))?;
    let headers = reader.headers()?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let cell = |name: &str| {
            let at = headers.iter().position(|h| h == name);
            at.and_then(|i| record.get(i)).unwrap_or("").to_owned()
        };
        let question = cell("question");
        let mut facts = Vec::new();
        let mut asked = None;
        for sentence in question.split_inclusive(['.', '?']) {
            let words: Vec<&str> = sentence
                .trim()
                .trim_end_matches(['.', '?'])
                .split(' ')
                .collect();
            match words[..] {
                ["The", attribute, "of", name, "is", value] => {
                    facts.push((attribute.to_owned(), name.to_owned(), value.to_owned()));
                }
                ["What", "is", "the", attribute, "of", name] => {
                    asked = Some((attribute.to_owned(), name.to_owned()));
                }
                _ => return Err(format!("{file}: odd sentence {sentence:?}").into()),
            }
        }
        let (attribute, name) = asked.ok_or("no question")?;
        let options: Vec<String> = cell("options").split(" | ").map(str::to_owned).collect();
        let mut letter = String::new();
        let mut answer = cell("answer");
        if file.contains("mcq") {
            letter = answer;
            let at = "ABCD".find(&letter).ok_or("not a letter")?;
            answer = options[at].clone();
        }
        rows.push((facts, (attribute, name, answer), options, letter));
    }
    Ok(rows)
}

#[test]
fn test_facts_are_held_out_and_answers_follow_from_the_context() -> Result<(), Box<dyn Error>> {
    let mut seen: [HashSet<Fact>; 2] = Default::default();
    for task in ["mcq", "saq"] {
        for (half, split) in ["train", "test"].into_iter().enumerate() {
            let rows = rows(&format!("{split}_dataset_{task}.csv"))?;
            assert!(rows.len() >= 300, "{task} {split}: {}", rows.len());
            for (facts, asked, options, _) in rows {
                assert_eq!(facts.len(), 4);
                assert!(facts.contains(&asked), "{asked:?} is not in {facts:?}");
                if task == "mcq" {
                    let values: HashSet<&String> = facts.iter().map(|f| &f.2).collect();
                    assert_eq!(values, options.iter().collect());
                }
                seen[half].extend(facts);
            }
        }
    }
    assert!(seen[0].is_disjoint(&seen[1]));
    Ok(())
}

#[test]
fn letters_are_even() -> Result<(), Box<dyn Error>> {
    let rows = rows("test_dataset_mcq.csv")?;
    for letter in ["A", "B", "C", "D"] {
        let share = rows.iter().filter(|r| r.3 == letter).count() as f64 / rows.len() as f64;
        assert!((0.17..0.33).contains(&share), "{letter}: {share}");
    }
    Ok(())
}
