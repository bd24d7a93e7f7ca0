#!/usr/bin/env bash
# Everything that one NVIDIA GPU has to show, in one call or two on a bare CUDA machine: operations and
# training against the CPU, QLoRA at the Llama-3-8B shape, each kernel beside its floor, the same in
# torch; one table last. Needs bash, python3 with torch, and the folder that pack-gpu.sh fills.
#
#   bash target/gpu/gpu.sh
#
# Ends within KILN_GPU_SECONDS [530], whatever fails: each step has its own limit, and one that no
# longer fits is left out. Logs go to ${OUT:-gpu_out}, at most 8 files.
#
#   KILN_GPU_SKIP="ops training"   leaves steps out by name
#   KILN_GPU_TMP=DIR               where the 16 GB checkpoint and the caches go [/dev/shm where it and
#                                  memory have room, else /tmp]
#   KILN_GPU_KEEP=DIR              works in DIR and leaves it: the next call has the program, checkpoint
#                                  and caches of this one, and its table the results of both
#   KILN_GPU_BINARY=PATH           a `gpu` program instead of the packed one
#   KILN_GPU_SHAPE=tiny            a small model, to try the script itself
#
# One call has no time for all of it. Better two with one KILN_GPU_KEEP, of one program and one shape:
# the first with KILN_GPU_SKIP="peers-qlora peers-dense peers-dense-2 generate-peer", the second with
# what has been done, which the first prints. A step that runs again replaces its result.
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
# Writing 16 GB to a disk takes long; in memory they must leave room for the processes.
scratch() {
  local free available
  free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
  available=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
  if ((${free:-0} > 40000000 && ${available:-0} > 80000000)); then
    echo /dev/shm
  else
    echo /tmp
  fi
}

remove=()
trap '((${#remove[@]} == 0)) || rm -rf "${remove[@]}"' EXIT
if [ -n "${KILN_GPU_KEEP:-}" ]; then
  work=$(mkdir -p "$KILN_GPU_KEEP" && cd "$KILN_GPU_KEEP" && pwd) || exit 2
else
  work=$(mktemp -d "${KILN_GPU_TMP:-$(scratch)}/kiln-gpu.XXXXXX") && work=$(cd "$work" && pwd) || exit 2
  remove+=("$work")
fi
# Programs and compiled code lie where they may run: /dev/shm often forbids it.
programs=$work
if ! { printf '#!/bin/sh\n' >"$work/runs" && chmod +x "$work/runs" && "$work/runs"; } 2>/dev/null; then
  programs=$(mktemp -d -t kiln-gpu.XXXXXX) || exit 2
  remove+=("$programs")
fi
rm -f "$work/runs"
logs=$work/logs
mkdir -p "$logs" && touch "$logs/steps.tsv" || exit 2
gpu=${KILN_GPU_BINARY:-$programs/gpu}
model=$work/model
# Outside of the project: nothing there may answer for what was carried.
cd "$work" || exit 2

asked() {
  case " ${KILN_GPU_SKIP:-} " in
    *" $1 "*) return 1 ;;
  esac
}

# step NAME MOST LEAST COMMAND...: runs COMMAND for MOST seconds at most, or not at all where fewer
# than LEAST are left. Its output goes to NAME.out and NAME.err.
step() {
  local name=$1 most=$2 least=$3 left start rc=0 verdict
  shift 3
  if ! asked "$name"; then
    leave "$name" 'left out, as asked'
    return 1
  fi
  left=$((budget - reserve - SECONDS))
  if ((left < least)); then
    leave "$name" "left out: $left s left, it needs $least"
    return 1
  fi
  ((most < left)) || most=$left
  start=$SECONDS
  forget "$name"
  timeout -k 3 "$most" "$@" >"$logs/$name.out" 2>"$logs/$name.err" || rc=$?
  case $rc in
    0) verdict=ok ;;
    124 | 137) verdict="out of time after $most s" ;;
    *) verdict="failed with exit code $rc: $(tail -n 1 "$logs/$name.err" | cut -c 1-160)" ;;
  esac
  note "$name" "$verdict" $((SECONDS - start))
  return "$rc"
}

# What an earlier call in a kept folder left of a step.
forget() {
  rm -f "$logs/$1".*
  sed -i "/^$1\t/d" "$logs/steps.tsv"
}

note() {
  printf '%s\t%s\t%s\n' "$1" "$3" "$2" >>"$logs/steps.tsv"
  tell "$1" "$2"
}

tell() {
  printf '[%3d s] %-17s %s\n' "$SECONDS" "$1" "$2"
}

# A step that does not run; what an earlier call got from it stays.
leave() {
  if [ -e "$logs/$1.out" ]; then
    tell "$1" "$2; the earlier result stays"
  else
    forget "$1"
    note "$1" "$2" 0
  fi
}

# Whether an earlier call has made all of FILE for STEP; finished says so.
kept() {
  [ -e "$2.whole" ] && tell "$1" 'kept from an earlier call'
}
finished() {
  touch "$1.whole"
}

# What the kernel caches of a run are: Kiln's compiled kernels and the driver's own.
with_cache() {
  local cache=$work/cache-$1
  shift
  env XDG_CACHE_HOME="$cache" CUDA_CACHE_PATH="$cache/nv" LD_LIBRARY_PATH="$libraries" \
    ${toolkit:+CUDA_PATH="$toolkit"} "$@"
}
export -f with_cache

# A CUDA toolkit for Kiln, of the machine or in Python's packages: headers, then the folders of NVRTC.
packages=$(timeout 10 python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
toolkit=${CUDA_PATH:-}
if [ -z "$toolkit" ] && [ ! -e /usr/local/cuda/include/cuda_fp16.h ]; then
  nvcc=$(readlink -f "$(command -v nvcc)" 2>/dev/null)
  for folder in "${nvcc%/bin/nvcc}" "$packages/nvidia/cu13"; do
    if [ -e "$folder/include/cuda_fp16.h" ]; then
      toolkit=$folder
      break
    fi
  done
fi
libraries=${LD_LIBRARY_PATH:-}
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib ${toolkit:+"$toolkit/lib64"} \
  "$packages/nvidia/cu13/lib" "$packages/nvidia/cuda_nvrtc/lib"; do
  [ -d "$folder" ] && libraries=${libraries:+$libraries:}$folder
done
export work libraries toolkit

kiln() {
  local name=$1 most=$2 least=$3 cache=$4
  shift 4
  if [ ! -x "$gpu" ]; then
    leave "$name" 'left out: the program could not be unpacked'
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

export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=$programs/inductor TRITON_CACHE_DIR=$programs/triton
# A kernel that hangs must not take the time of other steps.
export KILN_KERNEL_TRIAL_SECONDS=${KILN_KERNEL_TRIAL_SECONDS:-25}
# Without persistence mode a card that nothing holds open is set up anew by each process, in seconds.
[ -r /dev/nvidia0 ] && { exec 9</dev/nvidia0; } 2>/dev/null
# A cold run starts with an empty cache, also in a kept folder.
for cold in small-cold:warm fast-cold:fast; do
  asked "${cold%:*}" && rm -rf "$work/cache-${cold#*:}"
done

step facts 15 5 nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,persistence_mode --format=csv,noheader
if compgen -G "$here/wheels/*.whl" >/dev/null; then
  kept wheels "$programs/site" || {
    step wheels 40 5 python3 -m pip install -q --no-index --no-deps --no-compile --target "$programs/site" "$here"/wheels/*.whl &&
      finished "$programs/site"
  } && export PYTHONPATH=$programs/site
fi
if [ -z "${KILN_GPU_BINARY:-}" ]; then
  if [ -x "$gpu" ] && [ ! "$here/gpu.xz" -nt "$gpu" ]; then
    tell unpack 'kept from an earlier call'
  else
    step unpack 40 5 python3 -c 'import lzma, os, shutil, sys
part = sys.argv[2] + ".part"
with lzma.open(sys.argv[1]) as packed, open(part, "wb") as program:
    shutil.copyfileobj(packed, program, 1 << 20)
os.chmod(part, 0o755)
os.replace(part, sys.argv[2])' "$here/gpu.xz" "$gpu"
  fi
fi

kiln doctor 20 5 first run doctor --json && timeout 10 python3 "$benches/gpu_table.py" doctor "$logs"
kiln ops 130 20 first ops
# Which CUDA C++ kernels passed their check. Where one did not, later steps are spared its time limit.
verdict=
for file in "$work"/cache-first/kiln/cuda-kernels-*.json; do
  [ "$file" -nt "$verdict" ] && verdict=$file
done
if [ -n "$verdict" ]; then
  cp "$verdict" "$logs/verdict.json"
  if ! python3 -c 'import json, sys; sys.exit(any(v for k, v in json.load(open(sys.argv[1])).items() if k not in ("card", "driver")))' "$verdict"; then
    for cache in warm fast portable mma; do
      # What an earlier call tried in that cache says more.
      [ -e "$work/cache-$cache/kiln/${verdict##*/}" ] ||
        { mkdir -p "$work/cache-$cache/kiln" && cp "$verdict" "$work/cache-$cache/kiln/"; }
    done
  fi
fi
[ "$shape" = 8b ] && kiln shapes 60 15 first shapes
kiln training 70 20 first training
if ! kept checkpoint "$model-$shape"; then
  rm -rf "$model" "$model"-*.whole
  step checkpoint 100 30 python3 "$benches/gpu_torch.py" write "$model" --shape "$shape" && finished "$model-$shape"
fi
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
# The card's own ceilings where they were measured.
ceilings=$(timeout 10 python3 "$benches/gpu_table.py" ceilings "$logs")
# shellcheck disable=SC2086 # Two flags with their values, or none.
kiln kernels 100 25 warm kernels --json "$logs/kernels.jsonl" $ceilings
decoding=(--batch 8 --prompt 512 --new 64)
[ "$shape" = 8b ] || decoding=(--batch 2 --prompt 16 --new 8)
kiln generate 60 25 warm generate --dir "$model" "${decoding[@]}" --rounds 2
peers peers-qlora 150 a,b,c both
peers peers-dense 80 d false
peers peers-dense-2 80 d true
# Without wgmma, as on every card but Hopper, and without the kernels in CUDA C++: whether they train
# alike, and what the others are worth.
KILN_CUDA_KERNELS=mma bench fast-mma 60 25 mma false mma --steps 10 --warmup 2 --at-most 20
KILN_CUDA_KERNELS=0 bench fast-portable 90 30 portable false portable --steps 10 --warmup 2 --at-most 20
bench fast-cold 90 30 fast false cold --steps 5 --warmup 2
# What graphs are worth.
KILN_GRAPHS=0 kiln generate-launched 45 25 warm generate --dir "$model" "${decoding[@]}" --rounds 1
# Decoding by transformers: NF4 where bitsandbytes is there, else dense bf16.
nf4=none
python3 -c 'import bitsandbytes' 2>/dev/null && nf4=nf4
step generate-peer 60 30 python3 "$benches/generate.py" "$model" --device cuda --bf16 --quantization "$nf4" "${decoding[@]}" --rounds 2

# Few files: whoever lends the machine may limit how many come back.
grep -h '^{"' "$logs"/*.out >"$out/results.jsonl" || true
for file in kernels.jsonl steps.tsv ops.out shapes.out training.out; do
  [ -f "$logs/$file" ] && cp "$logs/$file" "$out/"
done
for file in "$logs"/*.out "$logs"/*.err; do
  [ -s "$file" ] && printf '===== %s\n' "${file##*/}" && tail -c 400000 "$file"
done >"$out/log.txt"
if [ -n "${KILN_GPU_KEEP:-}" ]; then
  ran=$(awk -F '\t' '$3 == "ok" && $1 !~ /^(facts|wheels|unpack|doctor|checkpoint)$/ { print $1 }' "$logs/steps.tsv")
  printf 'Done, for KILN_GPU_SKIP of the next call: %s\n' "${ran//$'\n'/ }"
fi
echo
timeout 10 python3 "$benches/gpu_table.py" table "$logs" | tee "$out/table.txt"
