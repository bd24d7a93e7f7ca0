//! The shipped tasks: a few facts, then a question about one of them.

use crate::world::{Draw, Facts, Half};

/// One question over its own short context, both as short answer and as
/// multiple choice.
pub struct Question {
    pub text: String,
    pub answer: &'static str,
    /// The values in the context in a fresh order.
    pub options: Vec<&'static str>,
}

impl Question {
    pub fn draw(draw: &mut Draw, half: Half) -> Self {
        let facts = Facts::draw(draw, 4, half);
        let attribute = facts.attribute;
        let mut text = String::new();
        for (name, value) in &facts.pairs {
            text.push_str(&format!("The {attribute} of {name} is {value}. "));
        }
        let (name, answer) = draw.pick(&facts.pairs);
        text.push_str(&format!("What is the {attribute} of {name}?"));
        let mut options: Vec<&str> = facts.pairs.iter().map(|p| p.1).collect();
        draw.shuffle(&mut options);
        Self {
            text,
            answer,
            options,
        }
    }

    /// The letter of the right option.
    pub fn letter(&self) -> &'static str {
        let at = self.options.iter().position(|&o| o == self.answer);
        ["A", "B", "C", "D"][at.unwrap_or(0)]
    }
}
