#!/usr/bin/env bash
# Packs what a machine with an NVIDIA GPU needs into target/gpu: the program `gpu` for CUDA, stripped
# and compressed, and the scripts that run it (gpu.sh). Nothing has to be installed or built there.
#
#   scripts/pack-gpu.sh [WHEEL]...     Python packages to carry along, such as torchao or bitsandbytes
set -euo pipefail

most=$((40 << 20))
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
folder=target/gpu
mkdir -p "$folder"

cargo build --release --features cuda --example gpu
# The release profile strips; a profile of one's own may not.
cp "$target/release/examples/gpu" "$folder/gpu"
strip "$folder/gpu"
if command -v xz >/dev/null; then
  xz -9 -e -T 0 --force --keep "$folder/gpu"
else
  python3 -c 'import lzma, shutil, sys
with open(sys.argv[1], "rb") as plain, lzma.open(sys.argv[1] + ".xz", "wb", preset=9 | lzma.PRESET_EXTREME) as packed:
    shutil.copyfileobj(plain, packed)' "$folder/gpu"
fi
plain=$(stat -c %s "$folder/gpu")
packed=$(stat -c %s "$folder/gpu.xz")
rm "$folder/gpu"

cp scripts/gpu.sh benches/gpu_torch.py benches/gpu_llama.py benches/gpu_prepare.py benches/gpu_table.py benches/generate.py "$folder/"
rm -rf "$folder/wheels"
if (($# > 0)); then
  mkdir "$folder/wheels"
  cp "$@" "$folder/wheels/"
fi

mib() { awk "BEGIN { printf \"%.1f MiB\", $1 / 1048576 }"; }
printf 'program     %s, packed %s\n' "$(mib "$plain")" "$(mib "$packed")"
printf 'folder      %s in %s\n' "$(du -sh "$folder" | cut -f 1)" "$folder"
if ((packed >= most)); then
  echo "error: the packed program is not below 40 MiB" >&2
  exit 1
fi
