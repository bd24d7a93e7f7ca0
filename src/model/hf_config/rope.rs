//! The rotary settings of a `config.json` and the frequencies they give.

use super::error::ConfigError;
use super::keys::Keys;

/// More positions than any real model has: a larger number is a broken file.
pub(super) const MAX_POSITIONS: usize = 1 << 31;
const SUPPORTED_ROPE_TYPES: [&str; 3] = ["default", "linear", "llama3"];

/// Rotary position embedding (Su et al., 2021, arXiv:2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How the rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Llama 3.1's rule: long wavelengths are divided by `factor`, short ones
    /// kept, those between interpolated.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position: usize,
    },
}

impl Rope {
    /// The rotary frequencies, `head_dim / 2` of them, in f32 by the steps of
    /// transformers' `modeling_rope_utils.py`. The power is correctly rounded;
    /// torch's may differ from it in the last place.
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f32> {
        let theta = f64::from(self.theta as f32);
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / (theta.powf(f64::from(exponent)) as f32)
        });
        match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor as f32).collect(),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position,
            } => {
                let context = original_max_position as f64;
                let longest = (context / low_freq_factor) as f32;
                let shortest = (context / high_freq_factor) as f32;
                let span = (high_freq_factor - low_freq_factor) as f32;
                let factor = factor as f32;
                plain
                    .map(|f| {
                        let wavelength = std::f64::consts::TAU as f32 / f;
                        if wavelength < shortest {
                            f
                        } else if wavelength > longest {
                            f / factor
                        } else {
                            let smooth =
                                (context as f32 / wavelength - low_freq_factor as f32) / span;
                            (1.0 - smooth) * f / factor + smooth * f
                        }
                    })
                    .collect()
            }
        }
    }
}

pub(super) fn read_rope(keys: &Keys, max_positions: usize) -> Result<Rope, ConfigError> {
    // rope_parameters (v5) holds theta and scaling; v4 keeps theta beside rope_scaling.
    // Of both, transformers 5 takes the older one, unless it is empty.
    let older = keys.object("rope_scaling")?.filter(|o| !o.is_empty());
    let section = match older {
        Some(object) => Some(("rope_scaling", object)),
        None => (keys.object("rope_parameters")?).map(|o| ("rope_parameters", o)),
    };
    let top_theta = keys.positive("rope_theta")?;
    if let Some(factor) = keys.positive("partial_rotary_factor")? {
        reject_partial(keys, "partial_rotary_factor", factor)?;
    }
    let Some((name, object)) = section else {
        return Ok(Rope {
            theta: top_theta.unwrap_or(10_000.0),
            scaling: RopeScaling::None,
        });
    };
    let inner = keys.inside(name, object);
    if let Some(factor) = inner.positive("partial_rotary_factor")? {
        reject_partial(&inner, "partial_rotary_factor", factor)?;
    }
    let theta = inner
        .positive("rope_theta")?
        .or(top_theta)
        .unwrap_or(10_000.0);
    // `type` is the key's name before transformers 4.43.
    let kind = match inner.string("rope_type")? {
        Some(kind) => kind,
        None => inner.string("type")?.unwrap_or_else(|| "default".into()),
    };
    let required = |key: &str| {
        inner
            .positive(key)?
            .ok_or_else(|| inner.error(key, format!("is missing; RoPE type `{kind}` needs it")))
    };
    let scaling = match kind.as_str() {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: required("factor")?,
        },
        "llama3" => {
            let low_freq_factor = required("low_freq_factor")?;
            let high_freq_factor = required("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                return Err(inner.error(
                    "high_freq_factor",
                    format!(
                        "is {high_freq_factor}; it must be greater than low_freq_factor \
                         {low_freq_factor}"
                    ),
                ));
            }
            // transformers 5 takes the number beside the section before the one in it.
            let trained = "original_max_position_embeddings";
            let beside = keys.optional_size(trained, MAX_POSITIONS)?;
            let inside = inner.optional_size(trained, MAX_POSITIONS)?;
            RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position: beside.or(inside).unwrap_or(max_positions),
            }
        }
        other => {
            return Err(keys.unsupported("RoPE type", other, &SUPPORTED_ROPE_TYPES));
        }
    };
    Ok(Rope { theta, scaling })
}

fn reject_partial(keys: &Keys, key: &str, factor: f64) -> Result<(), ConfigError> {
    if factor == 1.0 {
        return Ok(());
    }
    Err(keys.error(
        key,
        format!("is {factor}; only whole heads can be rotated (1.0)"),
    ))
}
