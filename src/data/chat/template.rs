//! A model's chat template: found as transformers finds it, rendered as it renders.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};
use thiserror::Error;

use super::limits::{FUEL, FUEL_PER_BYTE, PARSER_STACK, TEMPLATE_BYTES};
use super::{jinja, tags};
use crate::data::added_tokens::NAMED;
use crate::data::error::excerpt;

/// What can be wrong with a chat template.
#[derive(Debug, Error)]
pub enum ChatError {
    #[error("{path}: cannot read: {error}", path = path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{path}: {what}: copy the file again from the model's page", path = path.display())]
    Bad { path: PathBuf, what: String },
    #[error("{path}: chat_template is a list without a template named 'default' (it has {names}): save the one that is meant as FILE.jinja and set prompt.chat_template_file=FILE.jinja",
        path = path.display())]
    NoDefault { path: PathBuf, names: String },
    #[error(
        "{place}: the chat template is not valid Jinja: {what}: copy the file again, or set prompt.chat_template_file=FILE.jinja"
    )]
    Syntax { place: String, what: String },
    #[error("the chat template refuses these messages: {message} ({path})", path = path.display())]
    Refused { path: PathBuf, message: String },
    #[error("{place}: the chat template fails: {what}")]
    Render { place: String, what: String },
    #[error(
        "{place}: the chat template does not come to an end within {fuel} steps and {bytes} bytes of text: it loops or repeats too much; set prompt.chat_template_file=FILE.jinja to one that does not"
    )]
    Limit {
        place: String,
        fuel: u64,
        bytes: u64,
    },
    #[error("{path}: the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): choose a model that was tuned for chat, or set prompt.chat_template_file=FILE.jinja",
        path = path.display())]
    None { path: PathBuf },
    #[error(
        "message {message} calls tools and says nothing, and the chat template does not write tool_calls: the model would learn to say nothing; leave such rows out (data.on_error=skip), or set prompt.chat_template_file to a template that writes them"
    )]
    UnwrittenCall { message: usize },
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// What stood in `{% generation %}` blocks, as byte ranges of `text`.
    pub generation: Vec<Range<usize>>,
}

/// A chat template with the special tokens it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    source: Arc<str>,
    /// The one for conversations with tools.
    tools_source: Option<Arc<str>>,
    env: Arc<Environment<'static>>,
    tools_env: Option<Arc<Environment<'static>>>,
    tokens: Map<String, Value>,
    marks: bool,
}

impl ChatTemplate {
    /// The chat template of the model directory `dir`: `chat_template.jinja`, else
    /// `chat_template` of `tokenizer_config.json`; `None` where there is none.
    /// `file` takes the place of both.
    ///
    /// # Errors
    /// A file that cannot be read, or is no template.
    pub fn load(dir: &Path, file: Option<&Path>) -> Result<Option<Self>, ChatError> {
        let config_path = dir.join("tokenizer_config.json");
        let config = object(&config_path)?;
        let own = file.map_or_else(|| dir.join("chat_template.jinja"), Path::to_path_buf);
        let mut tools = None;
        let (path, source) = match read(&own)? {
            Some(source) => (own, source),
            None if file.is_some() => {
                let error = io::Error::from(io::ErrorKind::NotFound);
                return Err(ChatError::Read { path: own, error });
            }
            None => match config.get("chat_template") {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::String(source)) => (config_path, source.clone()),
                Some(list) => {
                    let named = named(list).ok_or_else(|| ChatError::Bad {
                        path: config_path.clone(),
                        what: "chat_template is neither text nor a list of name and template"
                            .to_string(),
                    })?;
                    let one = |name: &str| named.iter().find(|(n, _)| *n == name);
                    tools = one("tool_use").map(|(_, source)| source.to_string());
                    match one("default") {
                        Some((_, source)) => (config_path, source.to_string()),
                        None => {
                            let names: Vec<&str> = named.iter().map(|(n, _)| *n).collect();
                            return Err(ChatError::NoDefault {
                                path: config_path,
                                names: names.join(", "),
                            });
                        }
                    }
                }
            },
        };
        let map = object(&dir.join("special_tokens_map.json"))?;
        let mut tokens = Map::new();
        for name in NAMED {
            let text = [&config, &map]
                .into_iter()
                .find_map(|f| token(f.get(name)?));
            if let Some(text) = text {
                tokens.insert(name.to_string(), Value::from(text));
            }
        }
        let more = ["additional_special_tokens", "extra_special_tokens"]
            .into_iter()
            .find_map(|name| config.get(name).or_else(|| map.get(name))?.as_array());
        if let Some(more) = more {
            let texts: Vec<Value> = more.iter().filter_map(token).map(Value::from).collect();
            tokens.insert("additional_special_tokens".to_string(), texts.into());
        }
        Self::new(path, &source, tools.as_deref(), tokens).map(Some)
    }

    /// A template from `source`; `path` is where it comes from, for messages.
    fn new(
        path: PathBuf,
        source: &str,
        tools: Option<&str>,
        tokens: Map<String, Value>,
    ) -> Result<Self, ChatError> {
        let compile = |source: &str| {
            if source.len() as u64 > TEMPLATE_BYTES {
                let what = format!("{} bytes are too many for a chat template", source.len());
                return Err(ChatError::Bad {
                    path: path.clone(),
                    what,
                });
            }
            let bad = |what: String| ChatError::Bad {
                path: path.clone(),
                what: format!("the chat template cannot be read: {what}"),
            };
            // As Jinja reads lines.
            let source = source.replace("\r\n", "\n").replace('\r', "\n");
            let (source, marks) = tags::replace_generation(&source).map_err(bad)?;
            // Operators nest as deep as they are many.
            let parser = std::thread::Builder::new()
                .stack_size(PARSER_STACK)
                .spawn(move || jinja::environment(source))
                .map_err(|e| bad(e.to_string()))?;
            let env = parser
                .join()
                .map_err(|_| bad("the parser failed".to_string()))?
                .map_err(|e| ChatError::Syntax {
                    place: place(&path, e.line()),
                    what: e.detail().unwrap_or("it cannot be read").to_string(),
                })?;
            Ok((Arc::new(env), marks))
        };
        let (env, marks) = compile(source)?;
        let tools_env = tools.map(compile).transpose()?.map(|(env, _)| env);
        Ok(Self {
            path,
            source: Arc::from(source),
            tools_source: tools.map(Arc::from),
            env,
            tools_env,
            tokens,
            marks,
        })
    }

    /// The template's own text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All that the rendered text depends on besides the messages, and the date where a
    /// template writes it.
    pub fn settings(&self) -> String {
        let sources = [Some(&self.source), self.tools_source.as_ref()];
        let dated = sources.iter().flatten().any(|s| s.contains("strftime_now"));
        let today = dated.then(|| chrono::Local::now().date_naive());
        format!("{sources:?} {:?} {today:?}", self.tokens)
    }

    /// Whether the template marks what an assistant says.
    pub fn marks_assistant(&self) -> bool {
        self.marks
    }

    /// The text of `messages`, up to where the assistant speaks next where
    /// `prompt` is true; `tools` may be null.
    ///
    /// # Errors
    /// The template refuses the messages, fails, or does not end.
    pub fn render(
        &self,
        messages: &[Value],
        tools: &Value,
        prompt: bool,
    ) -> Result<Rendered, ChatError> {
        let mut context = self.tokens.clone();
        context.insert("messages".to_string(), Value::from(messages));
        context.insert("tools".to_string(), tools.clone());
        context.insert("documents".to_string(), Value::Null);
        context.insert("add_generation_prompt".to_string(), Value::from(prompt));
        let size: usize = messages.iter().chain([tools]).map(bytes).sum();
        let fuel = FUEL + FUEL_PER_BYTE * size as u64;
        let env = match &self.tools_env {
            Some(env) if !tools.is_null() => env,
            _ => &self.env,
        };
        // A clone shares everything but the limits.
        let mut env = Environment::clone(env);
        env.set_fuel(Some(fuel));
        let text = env
            .get_template("chat")
            .and_then(|t| t.render(minijinja::value::Serde(&context)))
            .map_err(|e| self.error(&e, fuel))?;
        Ok(unmark(text))
    }

    fn error(&self, error: &minijinja::Error, fuel: u64) -> ChatError {
        let mut inner = error;
        let mut causes: Vec<&minijinja::Error> = vec![inner];
        while let Some(next) = std::error::Error::source(inner)
            .and_then(|source| source.downcast_ref::<minijinja::Error>())
        {
            causes.push(next);
            inner = next;
        }
        let place = place(&self.path, causes.iter().rev().find_map(|e| e.line()));
        let deep = |e: &&minijinja::Error| {
            e.kind() == ErrorKind::OutOfFuel
                || e.detail().is_some_and(|d| d.contains("recursion limit"))
        };
        if causes.iter().any(deep) {
            return ChatError::Limit {
                place,
                fuel,
                bytes: fuel * 64,
            };
        }
        let raised = causes
            .iter()
            .find_map(|e| e.detail()?.strip_prefix(jinja::RAISED));
        if let Some(message) = raised {
            return ChatError::Refused {
                path: self.path.clone(),
                message: excerpt(message, 500),
            };
        }
        let what = match inner.detail() {
            Some(detail) => format!("{}: {detail}", inner.kind()),
            None => inner.kind().to_string(),
        };
        ChatError::Render {
            place,
            what: excerpt(&what, 500),
        }
    }
}

/// `path`, with the line where it is known.
fn place(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}, line {line} of the template", path.display()),
        None => path.display().to_string(),
    }
}

/// Takes the marks of generation blocks out and notes where they were.
fn unmark(marked: String) -> Rendered {
    if !marked.contains(jinja::MARKS) {
        return Rendered {
            text: marked,
            generation: Vec::new(),
        };
    }
    let mut text = String::with_capacity(marked.len());
    let (mut generation, mut start) = (Vec::new(), None);
    for c in marked.chars() {
        if c == jinja::MARKS[0] {
            start = Some(text.len());
        } else if c == jinja::MARKS[1] {
            generation.extend(start.take().map(|start| start..text.len()));
        } else {
            text.push(c);
        }
    }
    Rendered { text, generation }
}

/// About the bytes of a message.
fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + bytes(v)).sum::<usize>() + 8,
        _ => 8,
    }
}

/// A special token: its text, or an `AddedToken` object.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The names and templates of a list; `None` where an entry has not both.
fn named(list: &Value) -> Option<Vec<(&str, &str)>> {
    fn pair(item: &Value) -> Option<(&str, &str)> {
        Some((item.get("name")?.as_str()?, item.get("template")?.as_str()?))
    }
    let items = list.as_array()?;
    items.iter().map(pair).collect()
}

/// The text of `path`; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, ChatError> {
    let fail = |error| ChatError::Read {
        path: path.to_path_buf(),
        error,
    };
    match fs::metadata(path) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
        Ok(meta) if meta.len() > TEMPLATE_BYTES => {
            return Err(ChatError::Bad {
                path: path.to_path_buf(),
                what: format!("{} bytes are too many for a chat template", meta.len()),
            });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(fail)
}

/// The JSON object in `path`; empty where there is no such file.
fn object(path: &Path) -> Result<Map<String, Value>, ChatError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Map::new());
        }
        Err(error) => {
            return Err(ChatError::Read {
                path: path.to_path_buf(),
                error,
            });
        }
    };
    serde_json::from_slice(&bytes).map_err(|e| ChatError::Bad {
        path: path.to_path_buf(),
        what: format!("bad JSON: {e}"),
    })
}

#[cfg(test)]
impl ChatTemplate {
    /// A template of a test, with `<s>` and `</s>`.
    pub(crate) fn of(source: &str) -> Result<Self, ChatError> {
        let tokens = serde_json::json!({"bos_token": "<s>", "eos_token": "</s>"});
        let tokens = tokens.as_object().cloned().unwrap_or_default();
        Self::new(PathBuf::from("t.jinja"), source, None, tokens)
    }
}
