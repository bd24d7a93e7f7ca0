//! `data.format=chat`: conversations as JSON Lines or as one JSON list. A row has
//! `messages` (role, content), `conversations` (from, value: ShareGPT's form), or a
//! `text` that is taken whole.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Conversation, message, role};
use crate::data::error::{DataError, RowProblem, excerpt};
use crate::data::example::Example;
use crate::data::jsonl;
use crate::data::reader::{Input, Source};
use crate::data::spec::Spec;

/// Opens `input`; examples are counted by line, or from 1 within a list.
pub(in crate::data) fn open(spec: &Spec, input: Input) -> Result<Source, DataError> {
    let mut rows = jsonl::Objects::new(spec);
    let objects = jsonl::objects(spec, input)?;
    Ok(Box::new(objects.map(move |row| {
        row.and_then(|(row, map)| example(&mut rows, row, map))
    })))
}

/// The example of a row that may hold a conversation.
pub(in crate::data) fn example(
    rows: &mut jsonl::Objects,
    row: usize,
    map: Map<String, Value>,
) -> Result<Example, DataError> {
    match conversation(&map) {
        None => rows.example(row, map),
        Some(Err(problem)) => Err(DataError::row(rows.path(), row, problem)),
        Some(Ok(conversation)) => Ok(Example {
            id: match map.get("id") {
                Some(Value::String(id)) => id.trim().to_string(),
                Some(Value::Number(id)) => id.to_string(),
                _ => String::new(),
            },
            row,
            conversation: Some(Arc::new(conversation)),
            ..Example::default()
        }),
    }
}

/// The conversation of a row; `None` where the row has none.
pub(in crate::data) fn conversation(
    map: &Map<String, Value>,
) -> Option<Result<Conversation, RowProblem>> {
    let list = |key: &str| map.get(key)?.as_array();
    match (list("messages"), list("conversations")) {
        (Some(messages), _) => Some(finish(map, messages, plain)),
        (None, Some(turns)) => Some(finish(map, turns, |turn| {
            // Both forms go under this name.
            match turn.contains_key("from") {
                true => share_gpt(turn),
                false => plain(turn),
            }
        })),
        (None, None) => None,
    }
}

type Turn = Map<String, Value>;

fn finish(
    map: &Map<String, Value>,
    turns: &[Value],
    read: impl Fn(&Turn) -> Result<Value, String>,
) -> Result<Conversation, RowProblem> {
    let fail = |i: usize, what: String| RowProblem::Chat(format!("message {}: {what}", i + 1));
    let mut messages = Vec::with_capacity(turns.len() + 1);
    for (i, turn) in turns.iter().enumerate() {
        let turn = turn
            .as_object()
            .ok_or_else(|| fail(i, "is not an object with role and content".to_string()))?;
        messages.push(read(turn).map_err(|what| fail(i, what))?);
    }
    // ShareGPT's files may keep the system prompt beside the turns.
    if let Some(Value::String(system)) = map.get("system")
        && !system.trim().is_empty()
        && messages.first().is_none_or(|m| role(m) != "system")
    {
        messages.insert(0, message("system", system));
    }
    if !messages.iter().any(|m| role(m) == "assistant") {
        return Err(RowProblem::Chat(
            "no message of an assistant, so there is nothing to learn: remove the row".to_string(),
        ));
    }
    let tools = match map.get("tools") {
        None | Some(Value::Null) => Value::Null,
        Some(Value::Array(tools)) => Value::Array(tools.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Null,
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|e| RowProblem::Chat(format!("tools is not JSON: {e}")))?,
        Some(_) => {
            return Err(RowProblem::Chat(
                "tools is neither a list nor JSON text: write a list of tools".to_string(),
            ));
        }
    };
    let tools = match tools.as_array().is_some_and(Vec::is_empty) {
        true => Value::Null,
        false => tools,
    };
    Ok(Conversation { messages, tools })
}

/// A message as transformers takes it.
fn plain(turn: &Turn) -> Result<Value, String> {
    match turn.get("role") {
        Some(Value::String(role)) if !role.trim().is_empty() => {}
        _ => return Err("no role: write system, user or assistant".to_string()),
    }
    let assistant = turn.get("role").and_then(Value::as_str) == Some("assistant");
    let calls = turn.get("tool_calls").is_some_and(|calls| !calls.is_null());
    match turn.get("content") {
        Some(Value::String(text)) if assistant && text.trim().is_empty() && !calls => {
            Err("the assistant's content is empty: fill it or remove the row".to_string())
        }
        Some(Value::String(_) | Value::Array(_)) => Ok(normalised(turn)),
        // An assistant that only calls tools says nothing.
        None | Some(Value::Null) if calls => Ok(normalised(turn)),
        None | Some(Value::Null) => Err("no content: fill it or remove the row".to_string()),
        Some(_) => Err("content is neither text nor a list of parts".to_string()),
    }
}

/// The names under which messages keep thoughts; templates read the first.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as transformers hands it to a template: without keys that hold null, which
/// Parquet gives to each message, and with thoughts under the names that templates read.
fn normalised(turn: &Turn) -> Value {
    let mut turn: Turn = turn
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(thoughts) = THOUGHTS.into_iter().find_map(|key| turn.get(key)).cloned() {
        turn.entry("thinking").or_insert_with(|| thoughts.clone());
        turn.insert(THOUGHTS[0].to_string(), thoughts);
    }
    Value::Object(turn)
}

/// A turn of ShareGPT's form.
fn share_gpt(turn: &Turn) -> Result<Value, String> {
    let text = |key: &str| turn.get(key).and_then(Value::as_str);
    let from = text("from").ok_or("no 'from': write human, gpt or system")?;
    let role = match from.trim().to_ascii_lowercase().as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" | "model" | "chatgpt" | "bot" | "bard" | "bing" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        _ => {
            let from = excerpt(from, 40);
            return Err(format!(
                "from '{from}' is no known speaker: write human, gpt, system or tool"
            ));
        }
    };
    let value = text("value").ok_or("no 'value': fill it or remove the row")?;
    if role == "assistant" && value.trim().is_empty() {
        return Err("the value of an assistant is empty: fill it or remove the row".to_string());
    }
    Ok(message(role, value))
}
