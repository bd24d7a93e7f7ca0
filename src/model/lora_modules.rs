//! Which modules a new adapter has, and their ranks and alphas: what the config's section
//! `lora` comes to for a model, by PEFT's rules.

use super::hf_config::{ArchConfig, Linear};
use super::peft::{PeftError, available, resolve_targets};
use super::peft_patterns::Patterns;
use super::peft_targets::{Layers, matches};
use crate::config::types::LoraConfig;

/// A module of a new adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraModule {
    pub linear: Linear,
    pub r: usize,
    pub alpha: f64,
}

/// The modules that `lora` names, in the model's order.
///
/// # Errors
/// A name or pattern that matches nothing, a layer that is not there, nothing left.
pub fn lora_modules(lora: &LoraConfig, arch: &ArchConfig) -> Result<Vec<LoraModule>, PeftError> {
    let linears = chosen(lora, arch)?;
    let ranks = of_modules("lora.rank_pattern", &lora.rank_pattern, &linears)?;
    let alphas = of_modules("lora.alpha_pattern", &lora.alpha_pattern, &linears)?;
    let own = ranks.into_iter().zip(alphas);
    let modules = linears.into_iter().zip(own);
    let modules = modules.map(|(linear, (r, alpha))| LoraModule {
        linear,
        r: r.unwrap_or(lora.r),
        alpha: alpha.unwrap_or(lora.alpha),
    });
    Ok(modules.collect())
}

/// Without the excluded modules and other layers.
fn chosen(lora: &LoraConfig, arch: &ArchConfig) -> Result<Vec<Linear>, PeftError> {
    let all = arch.linears();
    for name in &lora.exclude_modules {
        if !all.iter().any(|linear| matches(&linear.module, name)) {
            return Err(PeftError::NoneToExclude {
                name: name.clone(),
                available: available(&all),
            });
        }
    }
    let layers = lora.layers_to_transform.iter().flatten();
    for &layer in layers {
        if layer >= arch.num_layers as u64 {
            return Err(PeftError::NoLayer {
                layer,
                layers: arch.num_layers,
            });
        }
    }
    let mut linears = resolve_targets(&lora.target_modules, arch)?;
    let excluded = |linear: &Linear| {
        let mut names = lora.exclude_modules.iter();
        names.any(|name| matches(&linear.module, name))
    };
    linears.retain(|linear| !excluded(linear));
    // No numbers at all are PEFT's word for every layer.
    let numbers = lora.layers_to_transform.as_deref();
    if let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
        let layers = Layers::new(numbers);
        let whole = |linear: &Linear| lora.target_modules.names().contains(&linear.module);
        linears.retain(|linear| whole(linear) || layers.take(&linear.module));
    }
    match linears.is_empty() {
        true => Err(PeftError::NoneLeft),
        false => Ok(linears),
    }
}

/// What the patterns of `key` give each module.
fn of_modules<T: Copy>(
    key: &'static str,
    patterns: &[(String, T)],
    linears: &[Linear],
) -> Result<Vec<Option<T>>, PeftError> {
    let patterns = Patterns::new(patterns).map_err(|pattern| PeftError::Pattern {
        key,
        pattern: pattern.to_string(),
    })?;
    let modules = || linears.iter().map(|linear| linear.module.as_str());
    if let Some(pattern) = patterns.idle(modules()) {
        return Err(PeftError::NoneForPattern {
            key,
            pattern: pattern.to_string(),
            available: available(linears),
        });
    }
    Ok(modules().map(|module| patterns.of(module)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compose::Node;
    use crate::config::from_tree;
    use crate::config::types::TargetModules;

    fn arch() -> ArchConfig {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny");
        let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
        ArchConfig::from_json(&text, Path::new("config.json")).unwrap()
    }

    fn lora() -> LoraConfig {
        let defaults = from_tree(&Node::empty_map()).unwrap().lora;
        LoraConfig {
            r: 8,
            alpha: 16.0,
            target_modules: TargetModules::Named("all-linear".into()),
            ..defaults
        }
    }

    #[test]
    fn layers_and_names_are_left_out_and_patterns_hold_in_order() {
        let arch = arch();
        let last = arch.num_layers as u64 - 1;
        let lora = LoraConfig {
            exclude_modules: vec!["down_proj".into(), "layers.0.self_attn.q_proj".into()],
            layers_to_transform: Some(vec![0, last]),
            rank_pattern: vec![
                (r"layers\.0\..*_proj".into(), 3),
                ("up_proj".into(), 5),
                ("[qk]_proj".into(), 6),
            ],
            alpha_pattern: vec![("up_proj".into(), 1.5)],
            ..lora()
        };
        let got = lora_modules(&lora, &arch).unwrap();
        let mut want = Vec::new();
        for linear in arch.linears() {
            let (layer, name) = (linear.module.split('.').nth(2), linear.module.clone());
            let first = layer == Some("0");
            let last = layer == Some(&last.to_string());
            if !(first || last) || name.ends_with("down_proj") || first && name.ends_with("q_proj")
            {
                continue;
            }
            let r = match name.rsplit('.').next().unwrap() {
                _ if first => 3,
                "up_proj" => 5,
                "q_proj" | "k_proj" => 6,
                _ => 8,
            };
            let alpha = if name.ends_with("up_proj") { 1.5 } else { 16.0 };
            want.push(LoraModule { linear, r, alpha });
        }
        assert_eq!(got, want);
    }

    #[test]
    fn whole_paths_are_taken_in_any_layer() {
        let (arch, path) = (arch(), "model.layers.1.mlp.up_proj");
        let lora = LoraConfig {
            target_modules: TargetModules::List(vec!["q_proj".into(), path.into()]),
            layers_to_transform: Some(vec![0]),
            ..lora()
        };
        let got = lora_modules(&lora, &arch).unwrap();
        let got: Vec<_> = got.iter().map(|m| m.linear.module.as_str()).collect();
        assert_eq!(got, ["model.layers.0.self_attn.q_proj", path]);
    }

    #[test]
    fn what_matches_nothing_is_an_error() {
        let arch = arch();
        let beyond = arch.num_layers as u64;
        for (lora, part) in [
            (
                LoraConfig {
                    exclude_modules: vec!["q_prj".into()],
                    ..lora()
                },
                "lora.exclude_modules: `q_prj` matches no module",
            ),
            (
                LoraConfig {
                    layers_to_transform: Some(vec![0, beyond]),
                    ..lora()
                },
                "lora.layers_to_transform: the model has no layer",
            ),
            (
                LoraConfig {
                    target_modules: TargetModules::List(vec!["q_proj".into()]),
                    exclude_modules: vec!["q_proj".into()],
                    ..lora()
                },
                "leave none of the modules",
            ),
            (
                LoraConfig {
                    target_modules: TargetModules::List(vec!["q_proj".into()]),
                    rank_pattern: vec![("up_proj".into(), 4)],
                    ..lora()
                },
                "lora.rank_pattern: `up_proj` matches no module that gets an adapter",
            ),
            (
                LoraConfig {
                    alpha_pattern: vec![("(q".into(), 4.0)],
                    ..lora()
                },
                "lora.alpha_pattern: `(q` is no regular expression",
            ),
        ] {
            let problem = lora_modules(&lora, &arch).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
