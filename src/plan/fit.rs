//! Which overrides make a run fit into memory, found by planning them.

use crate::config::types::{Config, LoraInit, Method, QuantMethod};

/// Lengths and ranks are not cut below these.
const SHORTEST: usize = 64;
const LOWEST_RANK: usize = 4;

/// A changed config that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As they are typed, e.g. `training.batch_size=2`.
    pub overrides: Vec<String>,
    /// The plan with them.
    pub bytes: u64,
}

/// A way to need less, and what it costs: time, then precision, then content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lever {
    /// The same result in a third more time.
    Checkpointing,
    /// The same result, a little slower.
    Batch,
    /// Only the answers to the test take longer.
    TestBatch,
    /// The same result; what is kept crosses the bus twice.
    Offload,
    Quantise,
    Rank,
    Adapter,
    Length,
}

const LEVERS: [Lever; 8] = [
    Lever::Checkpointing,
    Lever::Batch,
    Lever::TestBatch,
    Lever::Offload,
    Lever::Quantise,
    Lever::Rank,
    Lever::Adapter,
    Lever::Length,
];

impl Lever {
    /// Pulls once; `false` where it is at its end or does not apply.
    fn pull(self, config: &mut Config) -> bool {
        let training = &mut config.training;
        let lora = config.method == Method::Lora;
        match self {
            Lever::Checkpointing => !std::mem::replace(&mut training.gradient_checkpointing, true),
            Lever::Batch => {
                let size = training.batch_size;
                if size < 2 {
                    return false;
                }
                // A step still sees as many examples, or one batch more.
                let examples = size * training.gradient_accumulation_steps;
                training.batch_size = size / 2;
                training.gradient_accumulation_steps = examples.div_ceil(size / 2);
                true
            }
            Lever::TestBatch => {
                let more = config.inference.batch_size > 1;
                config.inference.batch_size = config.inference.batch_size.div_ceil(2);
                more
            }
            Lever::Offload => {
                training.gradient_checkpointing
                    && !std::mem::replace(&mut training.activation_offloading, true)
            }
            Lever::Quantise => {
                let dense = lora && config.quantization.method == QuantMethod::None;
                if dense {
                    config.quantization.method = QuantMethod::Nf4;
                }
                dense
            }
            Lever::Rank => {
                // LoftQ ties alpha to the rank.
                let tied = config.lora.init_lora_weights == LoraInit::Loftq;
                let fresh = config.lora.init_from.is_none() && !tied;
                let more = lora && fresh && config.lora.r > LOWEST_RANK;
                if more {
                    config.lora.r = (config.lora.r / 2).max(LOWEST_RANK);
                }
                more
            }
            Lever::Adapter => {
                if !lora {
                    config.method = Method::Lora;
                    config.quantization.method = QuantMethod::Nf4;
                }
                !lora
            }
            Lever::Length => {
                let more = training.max_seq_length > SHORTEST;
                if more {
                    training.max_seq_length = (training.max_seq_length / 2).max(SHORTEST);
                }
                more
            }
        }
    }
}

/// The cheapest change of `config` whose plan is at most `limit` bytes; `None`
/// where all together do not get there. `plan` gives the bytes of a config, `None`
/// for one that cannot be planned.
///
/// One lever alone is tried before several; then they are pulled one after the
/// other, cheapest first, and those that turn out not to be needed are put back.
pub fn fit(config: &Config, limit: u64, plan: &dyn Fn(&Config) -> Option<u64>) -> Option<Change> {
    let fits = |changed: &Config| plan(changed).filter(|bytes| *bytes <= limit);
    for lever in LEVERS {
        let mut changed = config.clone();
        while lever.pull(&mut changed) {
            if let Some(bytes) = fits(&changed) {
                return Some(change(config, &changed, bytes));
            }
        }
    }
    let mut pulled: Vec<Lever> = Vec::new();
    let mut changed = config.clone();
    let found = LEVERS.into_iter().any(|lever| {
        let mut found = false;
        while !found && lever.pull(&mut changed) {
            pulled.push(lever);
            found = fits(&changed).is_some();
        }
        found
    });
    if !found {
        return None;
    }
    // The cheapest are pulled to their end first: give back what is not needed,
    // the dearest first.
    let mut at = pulled.len();
    while at > 0 {
        at -= 1;
        let mut fewer = pulled.clone();
        fewer.remove(at);
        if fits(&with(config, &fewer)).is_some() {
            pulled = fewer;
        }
    }
    let changed = with(config, &pulled);
    Some(change(config, &changed, fits(&changed)?))
}

fn with(config: &Config, levers: &[Lever]) -> Config {
    let mut changed = config.clone();
    for lever in levers {
        lever.pull(&mut changed);
    }
    changed
}

fn change(before: &Config, after: &Config, bytes: u64) -> Change {
    let mut overrides = Vec::new();
    let mut add = |name: &str, before: String, after: String| {
        if before != after {
            overrides.push(format!("{name}={after}"));
        }
    };
    let (b, a) = (&before.training, &after.training);
    add(
        "training.gradient_checkpointing",
        b.gradient_checkpointing.to_string(),
        a.gradient_checkpointing.to_string(),
    );
    add(
        "training.activation_offloading",
        b.activation_offloading.to_string(),
        a.activation_offloading.to_string(),
    );
    for (name, before, after) in [
        ("training.batch_size", b.batch_size, a.batch_size),
        (
            "training.gradient_accumulation_steps",
            b.gradient_accumulation_steps,
            a.gradient_accumulation_steps,
        ),
        (
            "inference.batch_size",
            before.inference.batch_size,
            after.inference.batch_size,
        ),
        ("lora.r", before.lora.r, after.lora.r),
        (
            "training.max_seq_length",
            b.max_seq_length,
            a.max_seq_length,
        ),
    ] {
        add(name, before.to_string(), after.to_string());
    }
    let word = |quantised: QuantMethod| match quantised {
        QuantMethod::Nf4 => "nf4".to_string(),
        QuantMethod::None => "none".to_string(),
    };
    add(
        "quantization",
        word(before.quantization.method),
        word(after.quantization.method),
    );
    if before.method != after.method {
        overrides.push("method=lora".to_string());
    }
    Change { overrides, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let empty = crate::compose::Node {
            value: crate::compose::Value::Map(crate::compose::Map::new()),
            origin: crate::compose::Origin::BuiltIn,
        };
        crate::config::from_tree(&empty).unwrap()
    }

    /// Bytes with terms for each lever: 16 x batch x length, halved by
    /// checkpointing, 100 x rank, and the base.
    fn plan(config: &Config) -> Option<u64> {
        let t = &config.training;
        let tokens = (t.batch_size * t.max_seq_length) as u64;
        let tape = if t.gradient_checkpointing { 8 } else { 16 };
        let base = match (config.method, config.quantization.method) {
            (Method::Full, _) => 90_000,
            (_, QuantMethod::None) => 40_000,
            (_, QuantMethod::Nf4) => 10_000,
        };
        Some(tape * tokens + 100 * config.lora.r as u64 + base)
    }

    fn overrides(config: &Config, limit: u64) -> Vec<String> {
        let change = fit(config, limit, &plan).unwrap();
        assert!(change.bytes <= limit);
        change.overrides
    }

    #[test]
    fn the_cheapest_single_change_wins() {
        let mut config = config();
        config.training.gradient_checkpointing = false;
        let now = plan(&config).unwrap();
        assert_eq!(
            overrides(&config, now - 1),
            ["training.gradient_checkpointing=true"]
        );
        config.training.gradient_checkpointing = true;
        let now = plan(&config).unwrap();
        assert_eq!(
            overrides(&config, now - 1),
            [
                "training.batch_size=2",
                "training.gradient_accumulation_steps=8"
            ]
        );
        // An odd batch keeps at least its examples.
        config.training.batch_size = 5;
        config.training.gradient_accumulation_steps = 3;
        assert_eq!(
            overrides(&config, plan(&config).unwrap() - 1),
            [
                "training.batch_size=2",
                "training.gradient_accumulation_steps=8"
            ]
        );
        config.training.batch_size = 1;
        config.quantization.method = QuantMethod::None;
        assert_eq!(overrides(&config, 30_000), ["quantization=nf4"]);
        config.quantization.method = QuantMethod::Nf4;
        let now = plan(&config).unwrap();
        assert_eq!(overrides(&config, now - 1), ["lora.r=8"]);
        assert_eq!(
            overrides(&config, now - 2000),
            ["training.max_seq_length=256"]
        );
    }

    #[test]
    fn what_is_kept_leaves_the_device_before_numbers_become_coarser() {
        let mut config = config();
        config.training.batch_size = 1;
        config.inference.batch_size = 1;
        config.quantization.method = QuantMethod::None;
        let plan = |config: &Config| {
            let away = config.training.activation_offloading;
            Some(plan(config).unwrap() - if away { 2000 } else { 0 })
        };
        let change = fit(&config, plan(&config).unwrap() - 1, &plan).unwrap();
        assert_eq!(change.overrides, ["training.activation_offloading=true"]);
        // Without recomputation there is nothing to move.
        config.training.gradient_checkpointing = false;
        let change = fit(&config, plan(&config).unwrap() - 1, &plan).unwrap();
        assert_eq!(change.overrides, ["training.gradient_checkpointing=true"]);
    }

    #[test]
    fn several_changes_are_joined_and_none_without_need() {
        let mut config = config();
        config.training.gradient_checkpointing = false;
        config.quantization.method = QuantMethod::None;
        // No single one gets here.
        let found = overrides(&config, 16_500);
        assert!(found.contains(&"quantization=nf4".to_string()), "{found:?}");
        assert!(
            !found.iter().any(|o| o.starts_with("training.max_seq")),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|o| o.starts_with("inference")),
            "{found:?}"
        );
        let full = Config {
            method: Method::Full,
            ..config
        };
        let found = overrides(&full, 60_000);
        assert!(found.contains(&"method=lora".to_string()), "{found:?}");
    }

    #[test]
    fn what_cannot_fit_has_no_change() {
        assert_eq!(fit(&config(), 10_000, &plan), None);
        assert_eq!(fit(&config(), u64::MAX, &|_| None), None);
    }
}
