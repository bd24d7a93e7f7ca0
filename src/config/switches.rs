//! Values that are true, false or a word, and such that choose what counts.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// As it stands in a config.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Bool(bool),
    Word(String),
}

/// When a beam search that has as many answers as beams is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When no beam of its present length would be better.
    False,
    /// When no beam of any length could be better.
    Never,
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::True => serializer.serialize_bool(true),
            Self::False => serializer.serialize_bool(false),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Bool(true) => Ok(Self::True),
            Written::Bool(false) => Ok(Self::False),
            Written::Word(word) if word == "never" => Ok(Self::Never),
            Written::Word(word) => Err(serde::de::Error::unknown_variant(
                &word,
                &["true", "false", "never"],
            )),
        }
    }
}

/// By what a validation is the best so far (`training.metric_for_best_model`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestMetric {
    /// Lower is better; of all others higher.
    #[default]
    Loss,
    Accuracy,
    ExactMatch,
    ExactMatchIgnoreCase,
    F1,
    Sas,
}

impl BestMetric {
    /// Its name in configs, summaries and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
            Self::ExactMatch => "exact_match",
            Self::ExactMatchIgnoreCase => "exact_match_ignore_case",
            Self::F1 => "f1",
            Self::Sas => "sas",
        }
    }
}

/// A switch that may be left to the device: null or `auto`.
pub(super) fn true_false_or_auto<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<bool>, D::Error> {
    match Option::<Written>::deserialize(input)? {
        None => Ok(None),
        Some(Written::Bool(on)) => Ok(Some(on)),
        Some(Written::Word(word)) if word == "auto" => Ok(None),
        Some(Written::Word(word)) => Err(serde::de::Error::unknown_variant(
            &word,
            &["true", "false", "auto"],
        )),
    }
}
