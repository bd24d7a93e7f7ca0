//! The chats that ask for pairs and for their review, and the replies to them.

use serde_json::{Map, Value};

use super::{Kind, Pair};
use crate::ask::{first_json, without_thoughts};
use crate::data::chat::message;

/// Changes with the wording below: replies to other words are not mixed with these.
pub const PROMPTS: u32 = 1;

/// How many pairs of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub answers: usize,
    pub refusals: usize,
    pub corrections: usize,
}

impl Wanted {
    pub fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Answer => self.answers,
            Kind::Refusal => self.refusals,
            Kind::Correction => self.corrections,
        }
    }
}

/// A reply that has not the form that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub why: String,
    /// The pairs in it that can be used all the same.
    pub usable: Vec<Pair>,
}

/// What a reviewer says of a pair: `None` where it is right, else what is wrong.
pub type Verdict = Option<String>;

/// Marks of roles and ends of texts, which inside a text would end it.
const MARKS: [&str; 7] = [
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "</s>",
];

fn needs(kind: Kind) -> &'static str {
    match kind {
        Kind::Answer => {
            "kind \"answer\": the abstract answers the question. Use only what the abstract \
             says, with its own terms and its own figures"
        }
        Kind::Refusal => {
            "kind \"refusal\": a question that a reader of the abstract may well ask, but that \
             it does not answer. The answer says that the text does not give this, and makes \
             nothing up"
        }
        Kind::Correction => {
            "kind \"correction\": the question takes something for granted that contradicts the \
             abstract. The answer says what is wrong and what the abstract says instead"
        }
    }
}

/// Asks for the pairs of an abstract.
pub fn write_chat(text: &str, wanted: &Wanted) -> Vec<Value> {
    let mut task = String::from("Write questions and answers about the abstract below.\n\n");
    for kind in Kind::ALL {
        match wanted.of(kind) {
            0 => {}
            n => task += &format!("- {n} of {}.\n", needs(kind)),
        }
    }
    task += "\nEach question must make sense on its own, must differ from the others, and must \
             not speak of \"question 1\" or the like. Answers are one to three sentences in the \
             language of the abstract.\n\nReply with one JSON object and nothing else:\n\
             {\"pairs\": [{\"kind\": \"...\", \"question\": \"...\", \"answer\": \"...\"}]}\n\n\
             Abstract:\n";
    vec![
        message(
            "system",
            "You write exact training data for a model that answers questions about scholarly \
             texts. You reply with JSON alone.",
        ),
        message("user", &format!("{task}{text}")),
    ]
}

/// Asks whether the pairs of an abstract are right.
pub fn review_chat(text: &str, pairs: &[Pair]) -> Vec<Value> {
    let mut task = String::from(
        "Check each pair of question and answer against the abstract. A pair of kind answer is \
         right if the abstract says all that the answer says. One of kind refusal is right if the \
         abstract really does not answer the question and the answer says so. One of kind \
         correction is right if the question supposes something that the abstract contradicts and \
         the answer corrects exactly that. Unclear wording and questions that nobody would ask are \
         wrong too.\n\n",
    );
    for (i, pair) in pairs.iter().enumerate() {
        task += &format!(
            "{}. kind {}\nQuestion: {}\nAnswer: {}\n\n",
            i + 1,
            pair.kind.word(),
            pair.question,
            pair.answer
        );
    }
    task += "Reply with one JSON object and nothing else, with a verdict for each pair:\n\
             {\"verdicts\": [{\"number\": 1, \"ok\": true, \"why\": \"...\"}]}\n\nAbstract:\n";
    vec![
        message(
            "system",
            "You review training data strictly. You reply with JSON alone.",
        ),
        message("user", &format!("{task}{text}")),
    ]
}

/// The same chat after a malformed reply, which is shown with what is wrong with it.
pub fn again(mut chat: Vec<Value>, reply: &str, why: &str) -> Vec<Value> {
    chat.push(message("assistant", reply));
    let ask = format!("This cannot be used: {why}. Reply again, with the whole JSON object.");
    chat.push(message("user", &ask));
    chat
}

/// The pairs of a reply, in its order, and how many were more than wanted and left out.
///
/// # Errors
/// No JSON of the form, a pair without its parts, or too few of a kind.
pub fn read_pairs(reply: &str, wanted: &Wanted) -> Result<(Vec<Pair>, usize), Malformed> {
    let fail = |why: String, usable: &[Pair]| Malformed {
        why,
        usable: usable.to_vec(),
    };
    let list = listed(reply, "pairs", "question")
        .ok_or_else(|| fail("it has no JSON object with a list `pairs`".to_string(), &[]))?;
    let mut pairs: Vec<Pair> = Vec::new();
    let (mut surplus, mut problem) = (0, None);
    for (i, item) in list.iter().enumerate() {
        match pair(item) {
            Ok(pair)
                if pairs.iter().filter(|p| p.kind == pair.kind).count() < wanted.of(pair.kind) =>
            {
                pairs.push(pair);
            }
            Ok(_) => surplus += 1,
            Err(why) => {
                problem.get_or_insert(format!("pair {}: {why}", i + 1));
            }
        }
    }
    let lacking = Kind::ALL.into_iter().find_map(|kind| {
        let found = pairs.iter().filter(|p| p.kind == kind).count();
        let wanted = wanted.of(kind);
        (found < wanted)
            .then(|| format!("it has {found} of {wanted} pairs of kind {}", kind.word()))
    });
    match problem.filter(|_| lacking.is_some()).or(lacking) {
        Some(why) => Err(fail(why, &pairs)),
        None => Ok((pairs, surplus)),
    }
}

/// The verdicts of a reply on `count` pairs, in their order.
///
/// # Errors
/// No JSON of the form, or a pair without a verdict: the reason.
pub fn read_review(reply: &str, count: usize) -> Result<Vec<Verdict>, String> {
    let list = listed(reply, "verdicts", "ok")
        .ok_or_else(|| "it has no JSON object with a list `verdicts`".to_string())?;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; count];
    for item in &list {
        let number = item.get("number").and_then(Value::as_u64).unwrap_or(0) as usize;
        let ok = item.get("ok").and_then(Value::as_bool);
        let (Some(slot), Some(ok)) = (number.checked_sub(1).and_then(|i| verdicts.get_mut(i)), ok)
        else {
            return Err(format!(
                "a verdict needs `number` from 1 to {count} and `ok`, true or false"
            ));
        };
        let why = item.get("why").and_then(Value::as_str).unwrap_or("").trim();
        let why = match why {
            "" => "no reason given",
            why => why,
        };
        *slot = Some((!ok).then(|| why.to_string()));
    }
    let all: Option<Vec<Verdict>> = verdicts.iter().cloned().collect();
    all.ok_or_else(|| {
        let first = verdicts.iter().position(Option::is_none).unwrap_or(0);
        format!("it has no verdict on pair {}", first + 1)
    })
}

/// The list under `key`, or a bare list of objects that have `part`.
fn listed(reply: &str, key: &str, part: &str) -> Option<Vec<Map<String, Value>>> {
    let objects = |value: &Value| -> Option<Vec<Map<String, Value>>> {
        let list = match value {
            Value::Object(map) => map.get(key)?.as_array()?,
            Value::Array(list) if list.iter().any(|item| item.get(part).is_some()) => list,
            _ => return None,
        };
        list.iter().map(|item| item.as_object().cloned()).collect()
    };
    let text = without_thoughts(reply);
    first_json(&text, |value| objects(value).is_some()).and_then(|value| objects(&value))
}

fn pair(item: &Map<String, Value>) -> Result<Pair, String> {
    let kind = item
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("")
        .trim();
    let kind = Kind::ALL
        .into_iter()
        .find(|k| k.word().eq_ignore_ascii_case(kind))
        .ok_or("its kind is not answer, refusal or correction")?;
    let text = |key: &str| -> Result<String, String> {
        let text = item.get(key).and_then(Value::as_str).unwrap_or("").trim();
        match MARKS.into_iter().find(|mark| text.contains(mark)) {
            _ if text.is_empty() => Err(format!("it has no {key}")),
            Some(mark) => Err(format!("its {key} holds {mark}, which would end the text")),
            None => Ok(text.to_string()),
        }
    };
    Ok(Pair {
        kind,
        question: text("question")?,
        answer: text("answer")?,
    })
}

/// A pair as one text in roles; the abstract stands before the question where
/// `context` gives it.
pub fn row(system: Option<&str>, context: Option<&str>, pair: &Pair) -> String {
    let mut text = String::new();
    if let Some(system) = system {
        text += &format!("<|system|>{system}");
    }
    let context = context.map_or(String::new(), |text| format!("{text}\n\n"));
    text + &format!(
        "<|user|>{context}{}<|assistant|>{}",
        pair.question, pair.answer
    )
}
