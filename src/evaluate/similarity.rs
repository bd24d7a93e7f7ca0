//! Semantic answer similarity (SAS; Risch et al., 2021) by a bi-encoder: the cosine of
//! the sentence embeddings of answer and reference.

use super::answer::Answer;
use super::metrics::{exact_match_ignore_case, mean};
use super::score::{Scored, references};
use crate::data::example::Example;
use crate::embed::{EmbedError, SentenceEncoder, cosine};

/// The similarity of each answer with the best of its references, from -1 to 1; `None`
/// where there is none.
///
/// # Errors
/// A text that the encoder cannot read.
pub fn by_question(
    encoder: &SentenceEncoder,
    examples: &[Example],
    answers: &[Answer],
) -> Result<Vec<Option<f64>>, EmbedError> {
    let wanted: Vec<Vec<String>> = examples.iter().map(references).collect();
    let given: Vec<&str> = answers.iter().map(|a| a.text.as_str()).collect();
    let given = encoder.embed(&given)?;
    let flat: Vec<&String> = wanted.iter().flatten().collect();
    let mut vectors = encoder.embed(&flat)?.into_iter();
    Ok(given
        .iter()
        .zip(&wanted)
        .map(|(answer, wanted)| {
            let wanted = vectors.by_ref().take(wanted.len());
            wanted
                .map(|reference| cosine(answer, &reference))
                .reduce(f64::max)
        })
        .collect())
}

/// Adds `sas`, the mean over the questions, `exact_match_ignore_case`, and the product
/// of both, `sas_x_em`.
///
/// # Errors
/// As [`by_question`].
pub fn add(
    scored: &mut Scored,
    encoder: &SentenceEncoder,
    examples: &[Example],
) -> Result<(), EmbedError> {
    let similar = by_question(encoder, examples, &scored.answers)?;
    let pairs = examples.iter().zip(&scored.answers);
    let exact = mean(pairs.map(|(e, a)| exact_match_ignore_case(&a.text, &references(e))));
    if let (Some(sas), Some(exact)) = (mean(similar.into_iter().flatten()), exact) {
        for (name, value) in [
            ("exact_match_ignore_case", exact),
            ("sas", sas),
            ("sas_x_em", sas * exact),
        ] {
            scored.metrics.insert(name.to_string(), value);
        }
    }
    Ok(())
}
