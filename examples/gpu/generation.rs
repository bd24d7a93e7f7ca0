//! `gpu generate`: batched greedy decoding with a KV cache at the shape of a model
//! directory.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use kiln::config::types::ModelInit;
use kiln::generate::sampling::Sampler;
use kiln::generate::{GenerateOptions, Prompt, stream};
use kiln::model::{Adaptation, LoadOptions, load};
use kiln::rng::Stream;
use serde_json::json;

use super::common;
use super::timing::median;

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face model directory
    #[arg(long)]
    dir: PathBuf,
    /// Prompts that are continued at once
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens that each is continued by
    #[arg(long, default_value_t = 64)]
    new: usize,
    /// Of an adapter on all linears; 0 for the base alone
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Calls that are timed, after one that is not
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Random weights for the directory's config.json instead of its checkpoint
    #[arg(long)]
    random: bool,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Compute in f32 even where the device has bf16
    #[arg(long)]
    f32: bool,
}

pub fn call(args: &Args) -> Result<bool> {
    if args.batch == 0 || args.prompt == 0 || args.new < 2 || args.rounds == 0 {
        bail!("nothing to time: --batch, --prompt and --rounds must be above 0, --new above 1");
    }
    let device = common::card()?;
    let precision = common::precision(&device, args.f32);
    let lora = common::all_linear(args.rank.max(1), 0.0)?;
    let mut model = load(&LoadOptions {
        dir: &args.dir,
        init: match args.random {
            true => ModelInit::Random,
            false => ModelInit::Pretrained,
        },
        quantization: &common::double_nf4(),
        adaptation: match args.rank {
            0 => Adaptation::None,
            _ => Adaptation::Lora(&lora),
        },
        seed: args.seed,
        device: &device,
        precision,
    })?;
    let vocabulary = model.arch.vocab_size as u64;
    let row = |row: usize| -> Vec<u32> {
        let random = Stream::new(args.seed, &[row as u64]);
        let id = |i| (random.bits(i) % vocabulary) as u32;
        (0..args.prompt as u64).map(id).collect()
    };
    let rows: Vec<Vec<u32>> = (0..args.batch).map(row).collect();
    let prompts = rows
        .iter()
        .zip(0..)
        .map(|(ids, i)| Prompt { ids, key: [i, 0] });
    let prompts: Vec<Prompt<'_>> = prompts.collect();
    let mut inference = common::defaults()?.inference;
    inference.do_sample = false;
    let options = GenerateOptions {
        max_new_tokens: args.new,
        sampler: Sampler::new(&inference)?,
        beams: None,
        eos_ids: Vec::new(),
        seed: args.seed,
        adapter: args.rank > 0,
        slots: args.batch,
    };
    let (mut calls, mut prefills, mut passes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=args.rounds {
        let began = Instant::now();
        // When each pass had its tokens: the first prompt's are looked at first.
        let mut marks = Vec::new();
        stream(&mut model, &prompts, &options, &|_| false, &mut |seen| {
            if seen.prompt == 0 {
                marks.push(began.elapsed().as_secs_f64());
            }
        })?;
        if round > 0 {
            calls.push(began.elapsed().as_secs_f64());
            prefills.push(marks[0]);
            passes.extend(marks.windows(2).map(|pair| pair[1] - pair[0]));
        }
    }
    let pass = median(&passes);
    let report = json!({
        "side": "kiln-generation",
        "mode": "nf4",
        "precision": common::name(precision),
        "batch": args.batch,
        "prompt": args.prompt,
        "new": args.new,
        "rank": args.rank,
        "random_weights": args.random,
        "graphs": model.ops().records(&device),
        "tokens_per_s": (args.batch * args.new) as f64 / median(&calls),
        "first_token_s": median(&prefills),
        "decode_pass_s": pass,
        "decode_tokens_per_s": args.batch as f64 / pass,
    });
    println!("{report}");
    Ok(true)
}
