//! `config.json` of a Hugging Face checkpoint, read into an architecture that
//! the decoder, the checkpoint reader and the exporter share. Families are not
//! told apart after that: what one does differently is a field here.
//!
//! Both styles are read: transformers 4 (`rope_theta`, `rope_scaling`,
//! `torch_dtype`) and transformers 5 (`rope_parameters`, `dtype`).

use std::path::Path;

use super::checkpoint::Checkpoint;

mod arch;
mod error;
mod families;
pub(crate) mod keys;
mod layout;
mod rope;
mod write;

pub use arch::{ArchConfig, MlpKind, Naming, NormKind, Positions};
pub use error::ConfigError;
pub use families::SUPPORTED_MODEL_TYPES;
use families::read_family;
use keys::{Keys, parse_object, read};
pub use layout::{Linear, Parameter};
pub use rope::{Rope, RopeScaling};

impl ArchConfig {
    /// Reads `dir/config.json`. Where `dir/generation_config.json` names
    /// end-of-sequence tokens, those win, as in transformers' `generate`; and where
    /// the weights beside it hold a head other than the embedding, the two are not
    /// tied, whatever the file says.
    ///
    /// # Errors
    /// A file that is missing or not JSON, a key of the wrong type, a size that
    /// is zero or absurd, or a family, activation or RoPE type not supported.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let file = dir.join("config.json");
        let mut arch = Self::from_json(&read(&file)?, &file)?;
        // Weights that cannot be read are for whoever loads them to report.
        if arch.tie_word_embeddings
            && let Ok(checkpoint) = Checkpoint::open(dir)
            && arch.head_differs(&checkpoint)
        {
            arch.tie_word_embeddings = false;
        }
        let file = dir.join("generation_config.json");
        if file.is_file() {
            let object = parse_object(&read(&file)?, &file)?;
            let eos = Keys::new(&object, &file).token_ids("eos_token_id")?;
            if let Some(ids) = eos.filter(|ids| !ids.is_empty()) {
                arch.eos_token_ids = ids;
            }
        }
        Ok(arch)
    }

    /// Whether the checkpoint of a tied model holds a head that is not its embedding:
    /// then transformers 5 does not tie them, whatever config.json says.
    fn head_differs(&self, checkpoint: &Checkpoint) -> bool {
        let (head, embedding) = (self.lm_head().weight(), self.embedding());
        let bare = embedding.name.strip_prefix(self.base_prefix());
        let mut names = [Some(embedding.name.as_str()), bare].into_iter().flatten();
        let Some(name) = names.find(|name| checkpoint.contains(name)) else {
            return false;
        };
        if checkpoint.shape(&head.name) != Some(&head.shape[..]) {
            return false;
        }
        let differs = match checkpoint.dtype(name) == checkpoint.dtype(&head.name) {
            true => checkpoint.bytes(name) != checkpoint.bytes(&head.name),
            false => {
                let [a, b] =
                    [name, &head.name].map(|name| checkpoint.tensor_f32(name, &head.shape));
                !matches!((a, b), (Ok(a), Ok(b)) if a == b)
            }
        };
        checkpoint.release(name);
        checkpoint.release(&head.name);
        differs
    }

    /// Reads the text of a `config.json`; `file` names it in errors.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let object = parse_object(text, file)?;
        read_family(&Keys::new(&object, file))
    }
}

#[cfg(test)]
mod tests;
