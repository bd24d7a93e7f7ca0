#!/usr/bin/env bash
# Everything that one NVIDIA GPU has to show, in one call on a bare CUDA machine: operations and
# training against the CPU, QLoRA at the Llama-3-8B shape, the same in torch, each kernel beside its
# floor; one table last. Needs bash, python3 with torch, and the folder that pack-gpu.sh fills.
#
#   bash target/gpu/gpu.sh
#
# Ends within KILN_GPU_SECONDS [530], whatever fails: each step has its own limit, and one that no
# longer fits is left out. Logs go to ${OUT:-gpu_out}, at most 8 files.
#
#   KILN_GPU_SKIP="ops training"   leaves steps out by name
#   KILN_GPU_TMP=/dev/shm          where the 16 GB checkpoint and the caches go [/tmp]
#   KILN_GPU_BINARY=PATH           a `gpu` program instead of the packed one
#   KILN_GPU_SHAPE=tiny            a small model, to try the script itself
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-gpu_out}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
budget=${KILN_GPU_SECONDS:-530}
# Kept back for the table and for taking things away.
reserve=12
shape=${KILN_GPU_SHAPE:-8b}
seq=2048
[ "$shape" = 8b ] || seq=64

benches=$here
[ -f "$benches/gpu_torch.py" ] || benches=$here/../benches
work=$(mktemp -d "${KILN_GPU_TMP:-/tmp}/kiln-gpu.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
logs=$work/logs
mkdir "$logs"
gpu=${KILN_GPU_BINARY:-$work/gpu}
model=$work/model
# Outside of the project: nothing there may answer for what was carried.
cd "$work" || exit 2

# step NAME MOST LEAST COMMAND...: runs COMMAND for MOST seconds at most, or not at all where fewer
# than LEAST are left. Its output goes to NAME.out and NAME.err.
step() {
  local name=$1 most=$2 least=$3 left start rc=0 verdict
  shift 3
  case " ${KILN_GPU_SKIP:-} " in
    *" $name "*)
      note "$name" 'left out, as asked' 0
      return 1
      ;;
  esac
  left=$((budget - reserve - SECONDS))
  if ((left < least)); then
    note "$name" "left out: $left s left, it needs $least" 0
    return 1
  fi
  ((most < left)) || most=$left
  start=$SECONDS
  timeout -k 3 "$most" "$@" >"$logs/$name.out" 2>"$logs/$name.err" || rc=$?
  case $rc in
    0) verdict=ok ;;
    124 | 137) verdict="out of time after $most s" ;;
    *) verdict="failed with exit code $rc: $(tail -n 1 "$logs/$name.err" | cut -c 1-160)" ;;
  esac
  note "$name" "$verdict" $((SECONDS - start))
  return "$rc"
}

note() {
  printf '%s\t%s\t%s\n' "$1" "$3" "$2" >>"$logs/steps.tsv"
  printf '[%3d s] %-14s %s\n' "$SECONDS" "$1" "$2"
}

# What the kernel caches of a run are: Kiln's compiled kernels and the driver's own.
with_cache() {
  local cache=$work/cache-$1
  shift
  env XDG_CACHE_HOME="$cache" CUDA_CACHE_PATH="$cache/nv" "$@"
}
export -f with_cache
export work

kiln() {
  local name=$1 most=$2 least=$3 cache=$4
  shift 4
  if [ ! -x "$gpu" ]; then
    note "$name" 'left out: the program could not be unpacked' 0
    return 1
  fi
  step "$name" "$most" "$least" bash -c 'with_cache "$@"' _ "$cache" "$gpu" "$@"
}

# bench NAME MOST LEAST CACHE CHECKPOINTING LABEL FLAGS...
bench() {
  local name=$1 most=$2 least=$3 cache=$4 checkpointing=$5 label=$6
  shift 6
  kiln "$name" "$most" "$least" "$cache" bench --dir "$model" --checkpointing "$checkpointing" \
    --batch 2 --seq "$seq" --rank 16 --label "$label" "$@"
}

peers() {
  local name=$1 most=$2 variants=$3 checkpointing=$4
  step "$name" "$most" 35 python3 "$benches/gpu_torch.py" bench "$model" --variants "$variants" \
    --checkpointing "$checkpointing" --batch 2 --seq "$seq" --rank 16 --timeout 95 --at-most "$most"
}

plan() {
  kiln "plan-$1" 20 5 warm run plan --json task=tokens "data.path=$work/tokens.jsonl" "model.path=$model" \
    quantization=nf4 lora.target_modules=all-linear lora.r=16 lora.dropout=0 training.batch_size=2 \
    training.gradient_accumulation_steps=1 "training.max_seq_length=$seq" training.val_ratio=0 \
    "training.gradient_checkpointing=$2"
}

export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
step facts 15 5 nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader
if compgen -G "$here/wheels/*.whl" >/dev/null; then
  step wheels 40 5 python3 -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$here"/wheels/*.whl &&
    export PYTHONPATH=$work/site
fi
if [ -z "${KILN_GPU_BINARY:-}" ]; then
  step unpack 40 5 python3 -c 'import lzma, os, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(sys.argv[2], "wb") as program:
    shutil.copyfileobj(packed, program, 1 << 20)
os.chmod(sys.argv[2], 0o755)' "$here/gpu.xz" "$gpu"
fi

kiln ops 130 20 first ops
# Which CUDA C++ kernels passed their check. Where one did not, later steps are spared its time limit.
verdict=$(compgen -G "$work/cache-first/kiln/cuda-kernels-*.json" | head -n 1)
if [ -n "$verdict" ]; then
  cp "$verdict" "$logs/verdict.json"
  if ! python3 -c 'import json, sys; sys.exit(any(v for k, v in json.load(open(sys.argv[1])).items() if k not in ("card", "driver")))' "$verdict"; then
    for cache in warm fast portable mma; do
      mkdir -p "$work/cache-$cache/kiln" && cp "$verdict" "$work/cache-$cache/kiln/"
    done
  fi
fi
kiln training 70 20 first training
step checkpoint 100 30 python3 "$benches/gpu_torch.py" write "$model" --shape "$shape"
step ceilings 30 10 python3 "$benches/gpu_torch.py" ceilings
bench small-cold 100 30 warm true cold --steps 5 --warmup 2
bench small-warm 120 40 warm true warm --steps 97 --warmup 3 --at-most 75
bench fast-warm 70 25 warm false warm --steps 20 --warmup 3 --at-most 30
timeout 10 python3 -c 'import json, random, sys
for _ in range(2):
    ids = [random.randrange(3, 1000) for _ in range(int(sys.argv[1]))]
    print(json.dumps({"input_ids": ids, "labels": ids}))' "$seq" >"$work/tokens.jsonl"
plan small true
plan fast false
peers peers-qlora 150 a,b,c both
peers peers-dense 80 d false
# The card's own ceilings where they were measured.
ceilings=$(timeout 10 python3 "$benches/gpu_table.py" ceilings "$logs")
# shellcheck disable=SC2086 # Two flags with their values, or none.
kiln kernels 100 25 warm kernels --json "$logs/kernels.jsonl" $ceilings
peers peers-dense-2 80 d true
# Decoding, and the same by transformers: NF4 where bitsandbytes is there, else dense bf16.
decoding=(--batch 8 --prompt 512 --new 64)
[ "$shape" = 8b ] || decoding=(--batch 2 --prompt 16 --new 8)
kiln generate 60 25 warm generate --dir "$model" "${decoding[@]}" --rounds 2
nf4=none
python3 -c 'import bitsandbytes' 2>/dev/null && nf4=nf4
step generate-peer 60 30 python3 "$benches/generate.py" "$model" --device cuda --bf16 --quantization "$nf4" "${decoding[@]}" --rounds 2
bench fast-cold 90 30 fast false cold --steps 5 --warmup 2
# What graphs are worth.
KILN_GRAPHS=0 kiln generate-launched 45 25 warm generate --dir "$model" "${decoding[@]}" --rounds 1
# Without wgmma, as on every card but Hopper, and without the kernels in CUDA C++: what they are worth.
KILN_CUDA_KERNELS=mma bench fast-mma 60 25 mma false mma --steps 10 --warmup 2 --at-most 20
KILN_CUDA_KERNELS=0 bench fast-portable 90 30 portable false portable --steps 10 --warmup 2 --at-most 20

# Few files: whoever lends the machine may limit how many come back.
grep -h '^{"' "$logs"/*.out >"$out/results.jsonl" || true
for file in kernels.jsonl steps.tsv ops.out training.out; do
  [ -f "$logs/$file" ] && cp "$logs/$file" "$out/"
done
for file in "$logs"/*.out "$logs"/*.err; do
  [ -s "$file" ] && printf '===== %s\n' "${file##*/}" && tail -c 400000 "$file"
done >"$out/log.txt"
echo
timeout 10 python3 "$benches/gpu_table.py" table "$logs" | tee "$out/table.txt"
