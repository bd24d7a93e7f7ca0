//! `data.format=chat`: conversations as JSON Lines or as one JSON list. A row has
//! `messages` (role, content), `conversations` (from, value: ShareGPT's form), or a
//! `text` that is taken whole.

use std::io::BufRead;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Conversation, message, role};
use crate::data::error::{DataError, RowProblem, excerpt};
use crate::data::example::Example;
use crate::data::json_list::{Elements, ListError};
use crate::data::jsonl::{self, json_problem};
use crate::data::reader::{Input, Lines, Source};
use crate::data::spec::Spec;

/// Opens `input`; examples are counted by line, or from 1 within a list.
pub(in crate::data) fn open(spec: &Spec, mut input: Input) -> Result<Source, DataError> {
    let io = |e| DataError::io(&spec.path, e);
    let head = input.fill_buf().map_err(io)?;
    let list = head.trim_ascii_start().first() == Some(&b'[');
    let mut rows = jsonl::Objects::new(spec);
    if list {
        let (path, mut row) = (Arc::clone(&spec.path), 0);
        return Ok(Box::new(Elements::new(input).map(move |item| {
            row += 1;
            let fail = |problem| DataError::row(&path, row, problem);
            let bytes = item.map_err(|error| match error {
                ListError::Io(error) => DataError::io(&path, error),
                ListError::What(what) => DataError::Format {
                    path: path.to_path_buf(),
                    what: format!("is not a list of conversations: {what}, at row {row}"),
                    remedy: "write a JSON list of objects, or one object a line".to_string(),
                },
            })?;
            let text = String::from_utf8(bytes)
                .map_err(|_| fail(RowProblem::Utf8Line { what: "the row" }))?;
            let map =
                serde_json::from_str(&text).map_err(|e| fail(RowProblem::Json(e.to_string())))?;
            example(&mut rows, row, map)
        })));
    }
    let mut lines = Lines::new(spec, input);
    let path = Arc::clone(&spec.path);
    Ok(Box::new(std::iter::from_fn(move || {
        let (line, text) = match lines.next_filled()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let map = serde_json::from_str(&text)
            .map_err(|e| DataError::row(&path, line, RowProblem::Json(json_problem(&e))));
        Some(map.and_then(|map| example(&mut rows, line, map)))
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
        Some(Value::Array(tools)) if tools.is_empty() => Value::Null,
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
        Some(Value::String(_) | Value::Array(_)) => Ok(Value::Object(turn.clone())),
        // An assistant that only calls tools says nothing.
        None | Some(Value::Null) if calls => Ok(Value::Object(turn.clone())),
        None | Some(Value::Null) => Err("no content: fill it or remove the row".to_string()),
        Some(_) => Err("content is neither text nor a list of parts".to_string()),
    }
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
