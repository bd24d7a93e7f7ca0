//! Rules that clean generated answers before they are compared and written
//! (`inference.clean`): regular expressions and what takes their place, in order.
//!
//! Expressions are those of the crate `regex`: they take time in proportion to the
//! text, whatever the expression.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// A rule that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("rule {number}, `{rule}`: {problem}")]
pub struct CleanError {
    /// From 1.
    pub number: usize,
    pub rule: String,
    pub problem: String,
}

/// A rule that has a name.
pub struct Named {
    pub name: &'static str,
    /// Expressions and what takes their place, in order.
    steps: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const NAMED: [Named; 5] = [
    // A block; what stands before a block's end where the prompt opened it; a block that
    // is never closed, to the end of the answer.
    Named {
        name: "thinking",
        steps: &[
            (r"(?is)<think(?:ing)?>.*?</think(?:ing)?>", ""),
            (r"(?is)^.*</think(?:ing)?>", ""),
            (r"(?is)<think(?:ing)?>.*$", ""),
        ],
    },
    // Marks of a chat that a model spelled out.
    Named {
        name: "special_tokens",
        steps: &[(r"<\|[A-Za-z0-9_]{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>", "")],
    },
    // `Answer:`, `Assistant:` before the answer.
    Named {
        name: "label",
        steps: &[(
            r"(?i)^\s*(?:(?:final |the )?answer|assistant|response)\s*(?::|\bis:)\s*",
            "",
        )],
    },
    // Quotation marks around the whole answer.
    Named {
        name: "quotes",
        steps: &[(
            "(?s)^\\s*[\"\u{201c}\u{201d}](?P<inner>[^\"\u{201c}\u{201d}]*)[\"\u{201c}\u{201d}]\\s*$",
            "$inner",
        )],
    },
    // Runs of blanks and line ends become one blank.
    Named {
        name: "whitespace",
        steps: &[(r"\s+", " ")],
    },
];

/// The most memory that one compiled expression may take.
const MOST_BYTES: usize = 4 << 20;

/// The rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct Cleaner {
    steps: Vec<(Regex, String)>,
}

impl Cleaner {
    /// Rules are names of [`NAMED`] or have the form `s/PATTERN/REPLACEMENT/FLAGS` with
    /// any delimiter; a delimiter inside is written `\/`. `$1` and `${name}` stand for
    /// groups, flags are i (ignore case), s (`.` takes line ends) and m (`^` and `$` at
    /// lines). Each rule replaces every match.
    ///
    /// # Errors
    /// The first rule that cannot be read.
    pub fn new(rules: &[String]) -> Result<Self, CleanError> {
        let mut steps = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let fail = |problem| CleanError {
                number: i + 1,
                rule: rule.clone(),
                problem,
            };
            match NAMED.iter().find(|named| named.name == rule) {
                Some(named) => {
                    for (pattern, replacement) in named.steps {
                        steps.push((compile(pattern, "").map_err(fail)?, replacement.to_string()));
                    }
                }
                None => steps.push(substitution(rule).map_err(fail)?),
            }
        }
        Ok(Self { steps })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// `text` after all rules, without blanks around it. Without rules, as it is.
    pub fn clean(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_string();
        }
        let mut text = Cow::Borrowed(text);
        for (pattern, replacement) in &self.steps {
            if let Cow::Owned(changed) = pattern.replace_all(&text, replacement.as_str()) {
                text = Cow::Owned(changed);
            }
        }
        text.trim().to_string()
    }
}

/// Reads `s/PATTERN/REPLACEMENT/FLAGS`.
fn substitution(rule: &str) -> Result<(Regex, String), String> {
    let names: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
    let delimiter = rule.strip_prefix('s').and_then(|rest| rest.chars().next());
    let delimiter = delimiter.filter(|c| !c.is_alphanumeric() && !c.is_whitespace() && *c != '\\');
    let Some(delimiter) = delimiter else {
        return Err(format!(
            "is neither a name ({}) nor a substitution s/PATTERN/REPLACEMENT/",
            names.join(", ")
        ));
    };
    let parts = parts(&rule[1 + delimiter.len_utf8()..], delimiter);
    let [pattern, replacement, flags] = &parts[..] else {
        return Err(match parts.len() {
            1 | 2 => format!(
                "lacks a `{delimiter}`: write s{delimiter}PATTERN{delimiter}REPLACEMENT{delimiter}"
            ),
            _ => format!(
                "has too many `{delimiter}`: write `\\{delimiter}` where it is part of the text"
            ),
        });
    };
    if pattern.is_empty() {
        return Err("the pattern is empty".to_string());
    }
    if let Some(flag) = flags.chars().find(|flag| !"ism".contains(*flag)) {
        return Err(format!(
            "`{flag}` is no flag; flags are i, s and m, and every match is replaced in any case"
        ));
    }
    let pattern = compile(pattern, flags)?;
    check_groups(&pattern, replacement)?;
    Ok((pattern, replacement.clone()))
}

/// The text at its delimiters; one with a backslash before it is part of the text.
fn parts(text: &str, delimiter: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            _ if c == delimiter => parts.push(String::new()),
            '\\' => match chars.next() {
                Some(next) if next == delimiter => parts[last].push(next),
                Some(next) => parts[last].extend(['\\', next]),
                None => parts[last].push('\\'),
            },
            _ => parts[last].push(c),
        }
    }
    parts
}

fn compile(pattern: &str, flags: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(flags.contains('i'))
        .dot_matches_new_line(flags.contains('s'))
        .multi_line(flags.contains('m'))
        .size_limit(MOST_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_string(),
            // The last line says what is wrong, those before point at the place.
            other => {
                let text = other.to_string();
                let what = text.lines().last().unwrap_or_default();
                format!(
                    "not a regular expression: {}",
                    what.trim_start_matches("error: ")
                )
            }
        })
}

/// A group that the pattern does not have would silently be nothing.
fn check_groups(pattern: &Regex, replacement: &str) -> Result<(), String> {
    let used = Regex::new(r"\$(?:\$|\{([^}]*)\}|([0-9A-Za-z_]+))").map_err(|e| e.to_string())?;
    for captures in used.captures_iter(replacement) {
        let Some(name) = captures.get(1).or(captures.get(2)) else {
            continue;
        };
        let name = name.as_str();
        let known = match name.parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            Err(_) => pattern.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Err(format!(
                "the replacement names the group `{name}`, which the pattern does not have; write ${{1}} before \
                 letters, and $$ for a dollar sign"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(rules: &[&str], text: &str) -> String {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        Cleaner::new(&rules).unwrap().clean(text)
    }

    fn refusal(rules: &[&str]) -> String {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        Cleaner::new(&rules).unwrap_err().to_string()
    }

    #[test]
    fn thinking_goes_whether_closed_unclosed_or_opened_by_the_prompt() {
        for (text, want) in [
            ("<think>\nOslo? Rome?\n</think>\n\nOslo", "Oslo"),
            ("Oslo <think>no", "Oslo"),
            ("<think>never closed, 400 tokens", ""),
            ("Oslo or Rome.\n</think>\n\nRome", "Rome"),
            ("<think></think>a<THINK>b</THINK>c", "ac"),
            ("<think>a<think>b</think>c</think>d", "d"),
            ("<thinking>x</thinking>y", "y"),
            ("I think <so>", "I think <so>"),
            ("", ""),
        ] {
            assert_eq!(clean(&["thinking"], text), want, "{text:?}");
        }
    }

    #[test]
    fn named_rules_do_what_they_say() {
        assert_eq!(
            clean(&["special_tokens"], "Oslo<|im_end|></s><|endoftext|>"),
            "Oslo"
        );
        assert_eq!(
            clean(&["special_tokens"], "a <|b c|> <sub>"),
            "a <|b c|> <sub>"
        );
        assert_eq!(
            clean(&["label"], " Answer: Oslo. Answer: 2"),
            "Oslo. Answer: 2"
        );
        assert_eq!(clean(&["label"], "The answer is: Oslo"), "Oslo");
        assert_eq!(
            clean(&["label"], "Answering machines"),
            "Answering machines"
        );
        assert_eq!(clean(&["quotes"], " \"Oslo\" "), "Oslo");
        assert_eq!(clean(&["quotes"], "\"a\" or \"b\""), "\"a\" or \"b\"");
        assert_eq!(clean(&["whitespace"], " a\n\n b\t c "), "a b c");
        assert_eq!(clean(&[], " as it is "), " as it is ");
    }

    #[test]
    fn rules_apply_in_order_with_groups_flags_and_any_delimiter() {
        assert_eq!(clean(&["s/a/b/", "s/b/c/"], "aba"), "ccc");
        assert_eq!(clean(&["s/b/c/", "s/a/b/"], "aba"), "bcb");
        assert_eq!(
            clean(&[r"s/(\w+), (\w+)/$2 ${1}s/"], "Oslo, big"),
            "big Oslos"
        );
        assert_eq!(clean(&["s/OSLO/Rome/i"], "oslo Oslo"), "Rome Rome");
        assert_eq!(clean(&["s/a.b/x/"], "a\nb"), "a\nb");
        assert_eq!(clean(&["s/a.b/x/s"], "a\nb"), "x");
        assert_eq!(clean(&["s/^b$/x/m"], "a\nb"), "a\nx");
        assert_eq!(clean(&["s|a/b|c|"], "a/b"), "c");
        assert_eq!(clean(&[r"s/a\/b/c\/d/"], "a/b"), "c/d");
        assert_eq!(clean(&[r"s/5/$$5/"], "5"), "$5");
        assert_eq!(clean(&["s/é+/e/"], "éé東"), "e東");
        // A rule that matches nothing between characters ends.
        assert_eq!(clean(&["s/x*/-/"], "ab"), "-a-b-");
    }

    #[test]
    fn a_bad_rule_is_named_with_what_is_wrong() {
        for (rule, what) in [
            ("thinkin", "is neither a name (thinking,"),
            ("sabc", "is neither a name"),
            ("s/a", "lacks a `/`"),
            ("s/a/b", "lacks a `/`"),
            ("s/a/b/c/", "too many `/`"),
            ("s//b/", "the pattern is empty"),
            ("s/a/b/g", "`g` is no flag"),
            ("s/(a/b/", "not a regular expression: unclosed group"),
            ("s/a(?=b)/c/", "not a regular expression: look-around"),
            (r"s/(a)\1/c/", "not a regular expression: backreferences"),
            ("s/a/$1/", "group `1`"),
            ("s/(a)/$1b/", "group `1b`"),
            (r"s/\w{1000}{1000}/a/", "too large"),
        ] {
            let text = refusal(&["whitespace", rule]);
            assert!(text.starts_with(&format!("rule 2, `{rule}`: ")), "{text}");
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn long_answers_take_time_in_proportion() {
        let text = "<think>".repeat(20_000) + &"a ".repeat(100_000);
        let began = std::time::Instant::now();
        clean(
            &[
                "thinking",
                "special_tokens",
                "label",
                "quotes",
                "whitespace",
                "s/(a+ *)+$//",
            ],
            &text,
        );
        // Backtracking would take years.
        assert!(began.elapsed().as_secs() < 60);
    }
}
