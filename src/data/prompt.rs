//! Prompt templates: text with fields as `{name}`; `{{` and `}}` are braces. What stands
//! between `{?name}` and `{/name}` is left out where the field is absent or empty.

use std::borrow::Cow;

use thiserror::Error;

use super::error::list;
use super::example::{Example, option_letter};
use crate::compose::nearest;
use crate::config::types::PromptConfig;

/// What is wrong with a template, or with a template for an example.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    #[error(
        "{key}: '{found}' at character {at} has no partner: write {{{{ or }}}} for a brace, {{name}} for a field"
    )]
    Brace {
        key: &'static str,
        found: char,
        at: usize,
    },
    #[error(
        "{key}: '{{{name}}}' at character {at} is not a field name: write {{{{ and }}}} for braces"
    )]
    Name {
        key: &'static str,
        name: String,
        at: usize,
    },
    #[error("{key}: no field '{{{name}}}': the fields are {fields}{hint}", fields = list(fields), hint = hint(near))]
    Unknown {
        key: &'static str,
        name: String,
        fields: Vec<String>,
        near: Option<String>,
    },
    #[error(
        "{key}: '{{{mark}{name}}}' at character {at} has no partner: a part that may be left out is {{?{name}}}..{{/{name}}}, and holds no other such part"
    )]
    Section {
        key: &'static str,
        mark: char,
        name: String,
        at: usize,
    },
    #[error("{key}: '{{{name}}}' would show the model the answer: use it in prompt.answer only")]
    Leak { key: &'static str, name: String },
}

fn hint(near: &Option<String>) -> String {
    near.as_ref()
        .map(|n| format!("; is '{{{n}}}' meant?"))
        .unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    /// `{?name}`: up to the end of the section only where the field is not empty.
    Open(String),
    /// `{/name}`
    Close(String),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    key: &'static str,
    parts: Vec<Part>,
}

impl Template {
    /// Parses `text`, the value of config key `key`.
    ///
    /// # Errors
    /// A single brace, or a field that is not a name.
    pub fn parse(key: &'static str, text: &str) -> Result<Self, PromptError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        // The section that is open, and where it began.
        let mut open: Option<(String, usize)> = None;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((at, c)) = chars.next() {
            let brace = c == '{' || c == '}';
            if !brace || chars.next_if(|(_, next)| *next == c).is_some() {
                literal.push(c);
            } else if c == '}' {
                return Err(PromptError::Brace {
                    key,
                    found: c,
                    at: at + 1,
                });
            } else {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        Some((_, '}')) => break,
                        Some((_, c)) if c != '{' => name.push(c),
                        _ => {
                            return Err(PromptError::Brace {
                                key,
                                found: '{',
                                at: at + 1,
                            });
                        }
                    }
                }
                let at = at + 1;
                let mark = name.chars().next().filter(|c| matches!(c, '?' | '/'));
                let name = name[mark.map_or(0, char::len_utf8)..].to_string();
                if name.trim() != name || name.is_empty() {
                    return Err(PromptError::Name { key, name, at });
                }
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                let lone = |mark, name| PromptError::Section {
                    key,
                    mark,
                    name,
                    at,
                };
                parts.push(match mark {
                    Some('?') if open.is_none() => {
                        open = Some((name.clone(), at));
                        Part::Open(name)
                    }
                    Some('/') if open.as_ref().is_some_and(|(of, _)| *of == name) => {
                        open = None;
                        Part::Close(name)
                    }
                    Some(mark) => return Err(lone(mark, name)),
                    None => Part::Field(name),
                });
            }
        }
        if let Some((name, at)) = open {
            return Err(PromptError::Section {
                key,
                mark: '?',
                name,
                at,
            });
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { key, parts })
    }

    /// The names of the fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|p| match p {
            Part::Field(name) | Part::Open(name) => Some(name.as_str()),
            Part::Text(_) | Part::Close(_) => None,
        })
    }

    /// Fills the fields by `value`. `names` are those there are, for the message.
    fn render<'a>(
        &self,
        value: impl Fn(&str) -> Option<Cow<'a, str>>,
        names: impl Fn() -> Vec<String>,
    ) -> Result<String, PromptError> {
        let mut out = String::new();
        let mut left_out = false;
        for part in &self.parts {
            match part {
                Part::Close(_) => left_out = false,
                _ if left_out => {}
                Part::Text(text) => out.push_str(text),
                Part::Open(name) => {
                    left_out = value(name).is_none_or(|text| text.trim().is_empty())
                }
                Part::Field(name) => match value(name) {
                    Some(text) => out.push_str(&text),
                    None => {
                        let fields = names();
                        let near =
                            nearest(name, fields.iter().map(String::as_str)).map(str::to_string);
                        return Err(PromptError::Unknown {
                            key: self.key,
                            name: name.clone(),
                            fields,
                            near,
                        });
                    }
                },
            }
        }
        Ok(out)
    }
}

/// The templates of a task.
#[derive(Clone, Debug)]
pub struct Prompter {
    template: Template,
    answer: Template,
    option: Template,
    separator: String,
}

impl Prompter {
    /// # Errors
    /// A template does not parse, `prompt.template` names the answer, or
    /// `prompt.option` names something else than `letter` and `text`.
    pub fn new(config: &PromptConfig) -> Result<Self, PromptError> {
        let template = Template::parse("prompt.template", &config.template)?;
        if let Some(name) = template
            .fields()
            .find(|n| matches!(*n, "answer" | "letter"))
        {
            return Err(PromptError::Leak {
                key: "prompt.template",
                name: name.to_string(),
            });
        }
        let option = Template::parse("prompt.option", &config.option)?;
        option.render(
            |n| matches!(n, "letter" | "text").then_some(Cow::Borrowed("")),
            option_fields,
        )?;
        Ok(Self {
            template,
            answer: Template::parse("prompt.answer", &config.answer)?,
            option,
            separator: config.option_separator.clone(),
        })
    }

    /// The part before the answer.
    pub fn prompt(&self, example: &Example) -> Result<String, PromptError> {
        self.fill(&self.template, example, false)
    }

    /// The supervised part, of the first reference answer.
    pub fn answer(&self, example: &Example) -> Result<String, PromptError> {
        self.fill(&self.answer, example, true)
    }

    /// The options as text, joined by `prompt.option_separator`.
    pub fn options(&self, example: &Example) -> Result<String, PromptError> {
        let lines: Result<Vec<String>, PromptError> = example
            .options
            .iter()
            .enumerate()
            .map(|(i, option)| {
                let letter = option_letter(i).to_string();
                let value = |name: &str| match name {
                    "letter" => Some(Cow::Owned(letter.clone())),
                    "text" => Some(Cow::Borrowed(option.as_str())),
                    _ => None,
                };
                self.option.render(value, option_fields)
            })
            .collect();
        Ok(lines?.join(&self.separator))
    }

    fn fill(
        &self,
        template: &Template,
        example: &Example,
        answer: bool,
    ) -> Result<String, PromptError> {
        let options = match template.fields().any(|n| n == "options") && !example.options.is_empty()
        {
            true => Some(self.options(example)?),
            false => None,
        };
        let value = |name: &str| match name {
            "options" => options.as_deref().map(Cow::Borrowed),
            "answer" | "letter" if !answer => None,
            _ => field(example, name),
        };
        template.render(value, || names(example, answer))
    }
}

fn option_fields() -> Vec<String> {
    vec!["letter".to_string(), "text".to_string()]
}

/// The fields that `example` has, for prompts (`answer`: and for answers).
fn names(example: &Example, answer: bool) -> Vec<String> {
    let mut names: Vec<String> = ["question", "context", "text", "id", "answer", "letter"]
        .into_iter()
        .filter(|n| (answer || !matches!(*n, "answer" | "letter")) && field(example, n).is_some())
        .map(str::to_string)
        .collect();
    if !example.options.is_empty() {
        names.push("options".to_string());
    }
    names.extend(example.fields.iter().map(|(name, _)| name.to_string()));
    names
}

fn field<'a>(example: &'a Example, name: &str) -> Option<Cow<'a, str>> {
    match name {
        "question" => example.question.as_deref().map(Cow::Borrowed),
        "context" => example.context.as_deref().map(Cow::Borrowed),
        "text" => example.text.as_deref().map(Cow::Borrowed),
        "id" => Some(Cow::Borrowed(example.id.as_str())),
        "answer" => example.answers.first().map(|a| Cow::Borrowed(a.as_str())),
        "letter" => example.letter().map(|l| Cow::Owned(l.to_string())),
        _ => example
            .fields
            .iter()
            .find(|(n, _)| **n == *name)
            .map(|(_, v)| Cow::Borrowed(v.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(template: &str, answer: &str) -> PromptConfig {
        PromptConfig {
            template: template.to_string(),
            answer: answer.to_string(),
            option: "{letter}) {text}".to_string(),
            option_separator: "\n".to_string(),
            ..PromptConfig::default()
        }
    }

    fn example() -> Example {
        Example {
            id: "7".to_string(),
            question: Some("Where is {Oslo}?".to_string()),
            options: vec!["Peru".to_string(), "Norway".to_string()],
            answers: vec!["Norway".to_string()],
            answer_index: Some(1),
            fields: vec![("topic".into(), "places".to_string())],
            ..Example::default()
        }
    }

    #[test]
    fn fields_are_filled_once_and_braces_kept() {
        let p = Prompter::new(&config(
            "{{{topic}}} {question}\n{options}\nAnswer:",
            " {letter}) {answer}",
        ))
        .unwrap();
        assert_eq!(
            p.prompt(&example()).unwrap(),
            "{places} Where is {Oslo}?\nA) Peru\nB) Norway\nAnswer:"
        );
        assert_eq!(p.answer(&example()).unwrap(), " B) Norway");
    }

    #[test]
    fn a_section_is_left_out_where_its_field_is_absent_or_empty() {
        let text = "{question}\n{?topic}On {topic}.\n{/topic}{?no}{no}{/no}Answer:";
        let p = Prompter::new(&config(text, "{answer}")).unwrap();
        let mut e = example();
        let asked = "Where is {Oslo}?\n";
        assert_eq!(p.prompt(&e).unwrap(), format!("{asked}On places.\nAnswer:"));
        e.fields[0].1 = " ".to_string();
        assert_eq!(p.prompt(&e).unwrap(), format!("{asked}Answer:"));
        e.fields.clear();
        assert_eq!(p.prompt(&e).unwrap(), format!("{asked}Answer:"));
        let leak = Prompter::new(&config("{?answer}x{/answer}", "")).unwrap_err();
        assert!(matches!(leak, PromptError::Leak { .. }), "{leak}");
    }

    #[test]
    fn an_unknown_field_lists_those_there_are() {
        let p = Prompter::new(&config("{contxt} {question}", "{answer}")).unwrap();
        let error = p.prompt(&example()).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "prompt.template: no field '{contxt}': the fields are question, id, options, topic"
            ),
            "{error}"
        );
        let p = Prompter::new(&config("{question}", "{answr}")).unwrap();
        let error = p.answer(&example()).unwrap_err().to_string();
        assert!(error.contains("answer, letter"), "{error}");
    }

    #[test]
    fn bad_templates_are_refused_where_they_break() {
        let at = |t: &str| {
            Template::parse("prompt.template", t)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            at("ab {question"),
            "prompt.template: '{' at character 4 has no partner: write {{ or }} for a brace, {name} for a field"
        );
        assert!(at("é } x").contains("'}' at character 3"));
        assert!(at("{}").contains("'{}' at character 1 is not a field name"));
        assert!(at("{ question }").contains("is not a field name"));
        assert!(at("{a{b}}").contains("'{' at character 1"));
        for (text, mark) in [
            ("a {?b} c", "'{?b}' at character 3"),
            ("a {/b}", "'{/b}' at character 3"),
            ("{?a}{?b}{/b}{/a}", "'{?b}' at character 5"),
            ("{?a}x{/b}", "'{/b}' at character 6"),
        ] {
            assert!(at(text).contains(mark), "{}", at(text));
        }
        assert!(at("{?}").contains("is not a field name"));
        let leak = Prompter::new(&config("{question} {answer}", "")).unwrap_err();
        assert!(matches!(leak, PromptError::Leak { .. }), "{leak}");
        let mut bad = config("{question}", "{answer}");
        bad.option = "{leter}".to_string();
        assert!(
            Prompter::new(&bad)
                .unwrap_err()
                .to_string()
                .contains("letter, text")
        );
    }
}
