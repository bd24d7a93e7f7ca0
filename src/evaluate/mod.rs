//! Evaluation: answers of a model to a test set, and their metrics.

pub mod answer;
pub mod metrics;
pub mod score;
pub mod similarity;

pub use answer::{Answer, AnswerError, Questions, Reader};
pub use score::{Scored, by_question, references, score};
