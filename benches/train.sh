#!/usr/bin/env bash
# Training throughput and memory beside PEFT in one session, on the 134M Llama
# shape: LoRA r=16 on all linears, f32 and bf16, 4 x 256 tokens.
#
#   benches/train.sh PYTHON [ROUNDS]     PYTHON has torch, transformers, peft, bitsandbytes
#
# Sides alternate and rounds repeat, since machines are shared; compare medians
# of tokens_per_cpu_s. One JSON line a measurement.
set -euo pipefail
python=${1:?usage: benches/train.sh PYTHON [ROUNDS]}
rounds=${2:-2}
cd "$(dirname "$0")/.."
dir=target/bench_134m
[ -f "$dir/model.safetensors" ] || "$python" benches/peft_train.py save "$dir"
cargo build --release --bench train_step 2>/dev/null
kiln=$(ls -t target/release/deps/train_step-* | grep -v '\.d$' | head -n 1)
for _ in $(seq "$rounds"); do
  for threads in 1 2; do
    for mode in lora qlora; do
      quantization=none
      [ "$mode" = qlora ] && quantization=nf4
      for bf16 in false true; do
        for checkpointing in true false; do
          RAYON_NUM_THREADS=$threads "$kiln" --dir "$dir" --quantization "$quantization" --checkpointing "$checkpointing" --steps 3 --bf16 "$bf16"
        done
        narrow=()
        [ "$bf16" = true ] && narrow=(--bf16)
        "$python" benches/peft_train.py train "$dir" "$mode" --threads "$threads" --steps 3 "${narrow[@]}" 2>/dev/null
      done
    done
  done
done
