//! The metric `win_rate` of `run eval` and `run compare`: each answer beside its
//! reference, judged by another model in both orders.
//!
//! Verdicts are kept in a file by what was judged and by whom, so that neither a broken
//! connection nor another run with the same answers judges them again.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::asked::{check, name, with_asker};
use super::csv_file::write_csv;
use super::error::{Error, JudgeError};
use super::fsx::{self, LockFile, Locking};
use super::lines::Lines;
use super::log::Console;
use super::run_dir::RunPaths;
use super::summary::{Judged, Summary};
use crate::config::types::{Config, Metric};
use crate::data::example::Example;
use crate::digest::hex;
use crate::evaluate::Answer;
use crate::judge::{self, Outcome, PROMPTS, Tally, Verdict};

/// Whether the win rate is wanted.
pub(super) fn is_wanted(config: &Config) -> bool {
    config.task.metrics.contains(&Metric::WinRate)
}

/// Whether the judge can be asked, where one is wanted: found before answers are
/// generated.
///
/// # Errors
/// The keys of `judge` name no judge.
pub(super) fn check_judge(config: &Config) -> Result<(), Error> {
    match is_wanted(config) {
        true => Ok(check("judge", &config.judge.asked)?),
        false => Ok(()),
    }
}

/// One question to the judge.
struct Asked {
    key: String,
    chat: Vec<Value>,
}

/// A line of the file of verdicts.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    verdict: Verdict,
    judge: String,
}

/// Verdicts by key.
struct Verdicts {
    known: HashMap<String, Verdict>,
    /// Why a reply gave none.
    unparsed: HashMap<String, String>,
    file: Option<(Lines, LockFile)>,
}

/// Judges the answers of each model (`base`, `tuned`), writes `verdicts.csv` into the
/// run directory, and puts `win_rate` into the summary's metrics. Does nothing where the
/// task does not want it.
///
/// # Errors
/// The judge cannot be asked, or a file not be written.
pub(super) fn win_rates(
    config: &Config,
    run: &RunPaths,
    console: &Console,
    examples: &[Example],
    models: &[(&str, impl AsRef<[Answer]>)],
    summary: &mut Summary,
) -> Result<(), Error> {
    if !is_wanted(config) {
        return Ok(());
    }
    let who = name(&config.judge.asked);
    let settings = json!([PROMPTS, who, config.judge.asked.temperature]);
    let mut asked: IndexMap<String, Asked> = IndexMap::new();
    let mut of: Vec<Vec<[String; 2]>> = Vec::new();
    for (_, answers) in models {
        let keys = examples
            .iter()
            .zip(answers.as_ref())
            .map(|(example, answer)| {
                [true, false].map(|ours_first| {
                    let one = question(example, &answer.text, ours_first, &settings);
                    let key = one.key.clone();
                    asked.entry(key.clone()).or_insert(one);
                    key
                })
            });
        of.push(keys.collect());
    }
    let mut verdicts = Verdicts::open(config.judge.cache.as_deref(), console)?;
    verdicts.ask(config, console, asked.into_values().collect(), &who)?;
    let header = [
        "model",
        "id",
        "question",
        "answer",
        "reference",
        "answer_first",
        "reference_first",
        "outcome",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    for ((model, answers), keys) in models.iter().zip(&of) {
        let mut outcomes = Vec::new();
        let mut unparsed = Vec::new();
        for ((example, answer), keys) in examples.iter().zip(answers.as_ref()).zip(keys) {
            let found = keys.each_ref().map(|key| verdicts.known.get(key).copied());
            let outcome = match found {
                [Some(first), Some(second)] => Some(Outcome::new(first, second)),
                _ => None,
            };
            match outcome {
                Some(outcome) => outcomes.push(outcome),
                None => unparsed.push(example.id.clone()),
            }
            let said = |at: usize, words: [&str; 2]| match found[at] {
                Some(Verdict::First) => words[0].to_string(),
                Some(Verdict::Second) => words[1].to_string(),
                Some(Verdict::Tie) => "tie".to_string(),
                None => {
                    let why = verdicts.unparsed.get(&keys[at]);
                    format!("none: {}", why.map_or("", String::as_str))
                }
            };
            rows.push(vec![
                (*model).to_string(),
                example.id.clone(),
                example.question.clone().unwrap_or_default(),
                answer.text.clone(),
                reference(example).to_string(),
                said(0, ["answer", "reference"]),
                said(1, ["reference", "answer"]),
                outcome.map_or("not counted", Outcome::word).to_string(),
            ]);
        }
        let tally = Tally::new(outcomes);
        tell(console, model, &tally, &unparsed);
        let metrics = match *model {
            "base" => &mut summary.metrics.base,
            _ => &mut summary.metrics.tuned,
        };
        if let Some(rate) = tally.win_rate() {
            metrics.insert("win_rate".to_string(), rate);
        }
        let judged = Judged {
            judge: who.clone(),
            questions: tally.questions(),
            wins: tally.wins,
            losses: tally.losses,
            ties: tally.ties,
            contradictions: tally.contradictions,
            standard_error: tally.standard_error(),
            unparsed,
        };
        summary.judged.insert((*model).to_string(), judged);
    }
    let path = run.verdicts();
    write_csv(&path, &rows)?;
    console.line(&format!("verdicts   {}", path.display()));
    Ok(())
}

/// The reference that an answer is held against: the first.
fn reference(example: &Example) -> &str {
    example.answers.first().map_or("", String::as_str)
}

fn question(example: &Example, answer: &str, ours_first: bool, settings: &Value) -> Asked {
    let asked = example.question.as_deref().unwrap_or_default();
    let context = example.context.as_deref();
    let (first, second) = match ours_first {
        true => (answer, reference(example)),
        false => (reference(example), answer),
    };
    // The settings and all that the judge is shown.
    let content = json!([settings, asked, context, first, second]).to_string();
    let key = Sha256::digest(content.as_bytes());
    Asked {
        key: hex(&key[..16]),
        chat: judge::chat(asked, context, first, second),
    }
}

impl Verdicts {
    fn open(path: Option<&Path>, console: &Console) -> Result<Self, Error> {
        let mut verdicts = Self {
            known: HashMap::new(),
            unparsed: HashMap::new(),
            file: None,
        };
        let Some(path) = path else {
            return Ok(verdicts);
        };
        fsx::create_dir_all(fsx::parent_of(path))?;
        let mut beside = path.as_os_str().to_os_string();
        beside.push(".lock");
        let note = format!("process {}", std::process::id());
        let mut told = false;
        let lock = loop {
            match LockFile::acquire(Path::new(&beside), &note)? {
                Locking::Held(lock) => break lock,
                // Its verdicts may be ours as well, and the answers have taken long to make.
                Locking::Busy(owner) if !told => {
                    let path = path.display();
                    console.line(&format!("waiting until {owner} has judged ({path})"));
                    told = true;
                }
                Locking::Busy(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        };
        let (lines, file) = Lines::open(path)?;
        // A line of another kind is of no use here and does no harm.
        let kept = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Kept>(line).ok());
        verdicts
            .known
            .extend(kept.map(|kept| (kept.key, kept.verdict)));
        verdicts.file = Some((file, lock));
        Ok(verdicts)
    }

    /// Asks what is not known.
    fn ask(
        &mut self,
        config: &Config,
        console: &Console,
        mut asked: Vec<Asked>,
        who: &str,
    ) -> Result<(), Error> {
        let all = asked.len();
        asked.retain(|one| !self.known.contains_key(&one.key));
        let open = asked.len();
        console.line(&format!(
            "judge      {who}: {all} comparisons, {} of them judged before",
            all - open
        ));
        if asked.is_empty() {
            return Ok(());
        }
        let (keys, chats): (Vec<String>, Vec<Vec<Value>>) =
            asked.into_iter().map(|one| (one.key, one.chat)).unzip();
        let mut done = all - open;
        let mut failed: Option<Error> = None;
        let own = of_the_judge(config);
        let ended = with_asker("judge", &own.judge.asked, &own, |asker| {
            asker.ask(&chats, &mut |at, outcome| {
                let key = &keys[at];
                let read = match outcome {
                    Ok(reply) => judge::read(&reply).ok_or_else(|| beginning(&reply)),
                    Err(error) if error.is_of_one_chat() => Err(error.to_string()),
                    Err(error) => {
                        failed.get_or_insert(error.into());
                        return;
                    }
                };
                done += 1;
                match read {
                    Err(why) => {
                        self.unparsed.insert(key.clone(), why);
                    }
                    Ok(verdict) => {
                        self.known.insert(key.clone(), verdict);
                        let line = json!({"key": key, "verdict": verdict, "judge": who});
                        if let Some((file, _)) = &mut self.file
                            && let Err(error) = file.add(&line)
                        {
                            failed.get_or_insert(error.into());
                        }
                    }
                }
            });
            match failed {
                None => Ok(()),
                Some(error) => Err(error),
            }
        });
        ended.map_err(|cause| {
            let kept = match &config.judge.cache {
                Some(path) => format!(
                    " and kept in {}: the same command asks for the others alone",
                    path.display()
                ),
                None => "; with judge.cache=FILE they would be kept".to_string(),
            };
            match done {
                0 => cause,
                _ => JudgeError {
                    cause: Box::new(cause),
                    done,
                    of: all,
                    kept,
                }
                .into(),
            }
        })
    }
}

/// The config without what is set for the model whose answers are judged: a local judge
/// is asked by its own chat template, and draws from its own distribution.
fn of_the_judge(config: &Config) -> Config {
    let mut own = config.clone();
    own.prompt.chat_template_file = None;
    let inference = &mut own.inference;
    (inference.top_p, inference.top_k, inference.min_p) = (1.0, None, None);
    inference.repetition_penalty = 1.0;
    own
}

/// The first words of a reply without a verdict.
fn beginning(reply: &str) -> String {
    let words: Vec<&str> = reply.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(120) {
        Some((at, _)) => format!("no verdict in '{}...'", &line[..at]),
        None => format!("no verdict in '{line}'"),
    }
}

fn tell(console: &Console, model: &str, tally: &Tally, unparsed: &[String]) {
    let rate = match (tally.win_rate(), tally.standard_error()) {
        (Some(rate), Some(error)) => {
            format!(
                "{:.1} % +- {:.1} (standard error)",
                100.0 * rate,
                100.0 * error
            )
        }
        (Some(rate), None) => format!("{:.1} %", 100.0 * rate),
        (None, _) => "none".to_string(),
    };
    console.line(&format!(
        "win rate   {model}: {rate}; {} won, {} lost, {} ties, {} differ by order",
        tally.wins, tally.losses, tally.ties, tally.contradictions
    ));
    if !unparsed.is_empty() {
        const NAMED: usize = 10;
        let named = unparsed.iter().take(NAMED).cloned().collect::<Vec<_>>();
        let more = match unparsed.len() > NAMED {
            true => ", ...",
            false => "",
        };
        console.line(&format!(
            "not counted {model}: {} questions without a verdict (ids {}{more}); verdicts.csv has the replies",
            unparsed.len(),
            named.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Node;
    use crate::config::from_tree;

    #[test]
    fn a_judge_has_nothing_of_the_model_that_is_judged() {
        let defaults = from_tree(&Node::empty_map()).unwrap();
        let mut config = defaults.clone();
        config.prompt.chat_template_file = Some("own.jinja".into());
        let inference = &mut config.inference;
        (inference.top_p, inference.top_k, inference.min_p) = (0.1, Some(1), Some(0.5));
        inference.repetition_penalty = 2.0;
        assert_eq!(of_the_judge(&config), defaults);
    }
}
