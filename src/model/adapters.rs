//! The adapters of a model: which one a run asks for, how it is put beside the
//! linears, and several in memory at once.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::decoder::Decoder;
use super::hf_config::ArchConfig;
use super::layer::Layer;
use super::lora::{Dora, Lora};
use super::lora_modules::lora_modules;
use super::mlp::MLP_ROWS;
use super::options::{Adaptation, LoadOptions};
use super::pass::Pass;
use super::peft::{Adapter, AdapterConfig, LoraTensors, PeftError};
use super::peft_targets::names_of;
use crate::config::types::QuantMethod;

/// Values that lie on the device as f32.
pub(super) fn tensor(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The adapter to attach and its dropout. One that is read keeps its own rank,
/// alpha and modules, whatever the config says; a new one follows the config.
pub(super) fn resolve_adapter(
    arch: &ArchConfig,
    options: &LoadOptions<'_>,
) -> Result<Option<(Adapter, f64)>, PeftError> {
    let lora = match options.adaptation {
        Adaptation::None | Adaptation::Full => return Ok(None),
        Adaptation::Adapter(dir) => return Ok(Some((Adapter::read(dir, arch)?, 0.0))),
        Adaptation::Lora(lora) => lora,
    };
    if let Some(dir) = &lora.init_from {
        let mut adapter = Adapter::read(dir, arch)?;
        // What is written afterwards says what was used.
        adapter.config.lora_dropout = lora.dropout;
        return Ok(Some((adapter, lora.dropout)));
    }
    let modules = lora_modules(lora, arch)?;
    let named = || modules.iter().map(|m| (m.linear.module.clone(), m));
    let paths: Vec<&str> = modules.iter().map(|m| m.linear.module.as_str()).collect();
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: lora.r,
        lora_alpha: lora.alpha,
        ranks: named()
            .filter(|(_, m)| m.r != lora.r)
            .map(|(module, m)| (module, m.r))
            .collect(),
        alphas: named()
            .filter(|(_, m)| m.alpha != lora.alpha)
            .map(|(module, m)| (module, m.alpha))
            .collect(),
        lora_dropout: lora.dropout,
        target_modules: names_of(&paths, arch),
        use_rslora: lora.use_rslora,
        use_dora: lora.use_dora,
        // bitsandbytes' linears hold `[out, in]` whatever the checkpoint has.
        fan_in_fan_out: options.quantization.method == QuantMethod::None
            && arch.linears().iter().any(|linear| linear.transposed),
        init_lora_weights: lora.init_lora_weights,
    };
    let adapter = Adapter::initial(config, arch, options.seed)?;
    let init = lora.init_lora_weights;
    let narrow = |m: &&LoraTensors| m.r > m.in_features.min(m.out_features);
    if let (true, Some(m)) = (init.decomposes(), adapter.modules.iter().find(narrow)) {
        return Err(PeftError::Rank {
            r: m.r,
            init: init.word(),
            module: m.module.clone(),
            side: m.in_features.min(m.out_features),
        });
    }
    Ok(Some((adapter, lora.dropout)))
}

impl Decoder {
    /// Puts an adapter's matrices beside their linears, in the order of the model's
    /// modules, and makes it the one that computes; returns its number.
    pub(super) fn attach(&mut self, adapter: Adapter, dropout: f64) -> usize {
        let number = self.adapter_configs.len();
        self.adapter_notes.extend(adapter.note());
        let mut modules = adapter.modules;
        let (device, ops) = (self.device.clone(), self.ops());
        let params = &mut self.params;
        let linears = self.layers.iter_mut().flat_map(Layer::linears_mut);
        for (stream, linear) in linears.enumerate() {
            linear.loras.push(None);
            let Some(at) = modules.iter().position(|m| m.module == linear.module) else {
                continue;
            };
            let m = modules.swap_remove(at);
            let scale = adapter.config.scaling(&m.module) as f32;
            let taken = adapter.config.init_lora_weights.is_pissa();
            let start = taken.then(|| Arc::new([m.a.clone(), m.b.clone()]));
            let a = tensor(m.a, [m.r, m.in_features], &device);
            let b = tensor(m.b, [m.out_features, m.r], &device);
            let a = params.push(format!("{}.lora_A", m.module), a, true);
            let b = params.push(format!("{}.lora_B", m.module), b, true);
            let dora = adapter.config.use_dora.then(|| {
                let pass = Pass {
                    ops,
                    params,
                    adapter: None,
                    dropout: None,
                    operands: None,
                    first_row: 0,
                    mlp_rows: MLP_ROWS,
                };
                let squares = ops.row_squares(&linear.weight.dense(&pass));
                // A fresh B is zero, so the lengths begin as the base's.
                let lengths = match m.magnitude {
                    Some(values) => tensor(values, [1, m.out_features], &device),
                    None => squares.clone().sqrt(),
                };
                let name = format!("{}.lora_magnitude_vector", m.module);
                Dora {
                    magnitude: params.push(name, lengths, true),
                    squares,
                }
            });
            linear.loras[number] = Some(Lora {
                a,
                b,
                dora,
                start,
                scale,
                dropout: dropout as f32,
                stream: stream as u64,
            });
        }
        self.adapter_configs.push(adapter.config);
        self.active = number;
        number
    }

    /// Reads one more adapter into memory, for inference, and makes it the one that
    /// computes; returns its number for [`Decoder::use_adapter`].
    ///
    /// # Errors
    /// The directory holds no adapter that fits the model.
    pub fn add_adapter(&mut self, dir: &Path) -> Result<usize, PeftError> {
        let adapter = Adapter::read(dir, &self.arch)?;
        Ok(self.attach(adapter, 0.0))
    }

    /// Makes an adapter in memory the one that computes. The first one has number 0.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn use_adapter(&mut self, number: usize) {
        assert!(number < self.adapter_configs.len(), "no adapter {number}");
        self.active = number;
    }

    /// Adapters in memory.
    pub fn adapters(&self) -> usize {
        self.adapter_configs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ragged, load};
    use super::*;
    use crate::config::types::{
        LoraConfig, LoraInit, ModelInit, QuantizationConfig, TargetModules,
    };
    use crate::ops::Precision;
    use crate::rng::Stream;

    const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 31, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "initializer_range": 0.2}"#;

    /// An adapter that changes something, written to `dir`.
    fn write(dir: &Path, targets: &[&str], r: usize, use_dora: bool) {
        let arch = ArchConfig::from_json(CONFIG, Path::new("config.json")).unwrap();
        let config = AdapterConfig {
            base_model_name_or_path: None,
            r,
            lora_alpha: 8.0,
            ranks: Default::default(),
            alphas: Default::default(),
            lora_dropout: 0.0,
            target_modules: targets.iter().map(|t| t.to_string()).collect(),
            use_rslora: false,
            use_dora,
            fan_in_fan_out: false,
            init_lora_weights: Default::default(),
        };
        let mut adapter = Adapter::initial(config, &arch, r as u64).unwrap();
        for (n, module) in adapter.modules.iter_mut().enumerate() {
            let stream = Stream::new(r as u64, &[n as u64]);
            let values = module.b.iter_mut().enumerate();
            values.for_each(|(i, v)| *v = stream.normal(i as u64) * 0.3);
            let lengths = (0..module.out_features).map(|i| 0.5 + stream.uniform(i as u64));
            module.magnitude = use_dora.then(|| lengths.collect());
        }
        adapter.write(dir).unwrap();
    }

    fn open(base: &Path, adaptation: Adaptation<'_>) -> Decoder {
        let mut model = load(&LoadOptions {
            dir: base,
            init: ModelInit::Random,
            quantization: &QuantizationConfig {
                method: QuantMethod::None,
                double_quant: false,
                block_size: 64,
            },
            adaptation,
            seed: 1,
            device: &Device::flex(),
            precision: Precision::F32,
        })
        .unwrap();
        model.reserve_positions(8);
        model
    }

    fn logits(model: &Decoder, adapter: bool) -> Vec<f32> {
        let mut batch = Ragged::default();
        batch.push(&[3, 1, 4, 1, 5]);
        model.logits(&batch, &batch.last_rows(), adapter, None)
    }

    #[test]
    fn adapters_in_memory_compute_as_each_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
        let base = logits(&open(dir.path(), Adaptation::None), true);
        let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
        write(&paths[0], &["q_proj", "v_proj"], 2, false);
        write(&paths[1], &["down_proj"], 3, true);
        write(&paths[2], &["q_proj", "up_proj"], 4, false);
        let alone = paths.each_ref().map(|path| {
            let model = open(dir.path(), Adaptation::Adapter(path));
            assert_eq!(logits(&model, false), base);
            logits(&model, true)
        });
        let mut model = open(dir.path(), Adaptation::Adapter(&paths[0]));
        assert_eq!(model.add_adapter(&paths[1]).unwrap(), 1);
        assert_eq!(model.add_adapter(&paths[2]).unwrap(), 2);
        for number in [2, 0, 1] {
            model.use_adapter(number);
            assert_eq!(logits(&model, true), alone[number], "adapter {number}");
            assert_ne!(alone[number], base);
            assert_eq!(model.adapter(dir.path()).unwrap().config.r, number + 2);
        }
        assert_eq!(logits(&model, false), base);
        assert!(model.add_adapter(&dir.path().join("absent")).is_err());
    }

    const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 31, "n_embd": 16, "n_layer": 2,
        "n_head": 2, "n_positions": 32}"#;

    /// The modules that a new adapter for these targets has, and the targets it writes.
    fn targeted(base: &str, targets: &[&str]) -> (Vec<String>, Vec<String>) {
        let arch = ArchConfig::from_json(base, Path::new("config.json")).unwrap();
        let names = targets.iter().map(|name| name.to_string()).collect();
        let lora = LoraConfig {
            r: 2,
            alpha: 4.0,
            dropout: 0.0,
            target_modules: TargetModules::List(names),
            exclude_modules: Vec::new(),
            layers_to_transform: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            use_rslora: false,
            use_dora: false,
            init_lora_weights: LoraInit::True,
            loftq_iter: 1,
            init_from: None,
        };
        let options = LoadOptions {
            dir: Path::new(""),
            init: ModelInit::Random,
            quantization: &QuantizationConfig {
                method: QuantMethod::None,
                double_quant: false,
                block_size: 64,
            },
            adaptation: Adaptation::Lora(&lora),
            seed: 1,
            device: &Device::flex(),
            precision: Precision::F32,
        };
        let (adapter, _) = resolve_adapter(&arch, &options).unwrap().unwrap();
        // What is written means the same modules to whoever reads it.
        let dir = tempfile::tempdir().unwrap();
        adapter.write(dir.path()).unwrap();
        assert_eq!(Adapter::read(dir.path(), &arch).unwrap(), adapter);
        let modules = adapter.modules.into_iter().map(|m| m.module);
        (modules.collect(), adapter.config.target_modules)
    }

    #[test]
    fn a_path_adapts_the_modules_it_means_and_no_others() {
        let first = ["model.layers.0.self_attn.q_proj"];
        assert_eq!(
            targeted(CONFIG, &first),
            (vec![first[0].into()], vec![first[0].into()])
        );
        let attention = [0, 1].map(|layer| format!("transformer.h.{layer}.attn.c_proj"));
        let (modules, written) = targeted(GPT2, &["attn.c_proj"]);
        assert_eq!(
            (&modules[..], &written[..]),
            (&attention[..], &attention[..])
        );
        let (modules, written) = targeted(CONFIG, &["self_attn.q_proj", "up_proj"]);
        assert_eq!(
            (modules.len(), &written[..]),
            (4, &["q_proj".to_string(), "up_proj".into()][..])
        );
        let (modules, written) = targeted(GPT2, &["c_proj"]);
        assert_eq!(
            (modules.len(), &written[..]),
            (4, &["c_proj".to_string()][..])
        );
    }
}
