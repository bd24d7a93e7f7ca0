#!/usr/bin/env bash
# Generation throughput beside transformers in one session, on the 134M Llama shape of
# benches/train.sh: greedy, prompts of 64 tokens, 64 new ones, batches of 1 and 8.
#
#   benches/generate.sh PYTHON [ROUNDS]     PYTHON has torch, transformers, peft, bitsandbytes
#
# Sides alternate and rounds repeat, since machines are shared; compare medians of
# tokens_per_cpu_s. One JSON line a measurement.
set -euo pipefail
python=${1:?usage: benches/generate.sh PYTHON [ROUNDS]}
rounds=${2:-2}
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
dir=$target/bench_134m
[ -f "$dir/model.safetensors" ] || "$python" benches/peft_train.py save "$dir"
cargo build --release --bench generate 2>/dev/null
kiln=$(ls -t "$target"/release/deps/generate-* | grep -v '\.d$' | head -n 1)
for _ in $(seq "$rounds"); do
  for threads in 1 2; do
    for quantization in none nf4; do
      for batch in 1 8; do
        for bf16 in false true; do
          RAYON_NUM_THREADS=$threads "$kiln" --dir "$dir" --quantization "$quantization" --batch "$batch" --bf16 "$bf16"
          narrow=()
          [ "$bf16" = true ] && narrow=(--bf16)
          "$python" benches/generate.py "$dir" --quantization "$quantization" --batch "$batch" --threads "$threads" "${narrow[@]}" 2>/dev/null
        done
      done
    done
  done
done
