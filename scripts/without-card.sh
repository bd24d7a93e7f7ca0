#!/usr/bin/env bash
# Runs a program that was built with `--features cuda` on a machine without a card: stand-ins for the
# driver and for NVRTC compile each kernel with g++ and run it on the CPU (tests/cuda_standin), slowly.
# It shows what the whole CUDA path computes, what it launches and how much memory it asks for; it says
# nothing of a card's time, nor whether NVIDIA's compiler and driver take the kernels.
#
#   scripts/without-card.sh target/release/examples/gpu training
#
# KILN_CARD_UNTIL, KILN_CARD_LOG and KILN_CARD_REPORT: see tests/cuda_standin/driver.cpp.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sources=$root/tests/cuda_standin
out=${CARGO_TARGET_DIR:-$root/target}/standin
if (($# == 0)); then
  echo "usage: scripts/without-card.sh PROGRAM [ARGUMENT]..." >&2
  exit 2
fi
# Libraries and kernels are made anew where a source of theirs has changed.
version=$(cat "$sources"/*.?pp "$sources"/*.py "$sources"/include/*.h "$root"/tests/cuda_emulation/*.hpp | sha256sum)
out=$out/${version:0:12}
mkdir -p "$out/modules"
for library in libcuda.so.1:driver.cpp libnvrtc.so:nvrtc.cpp; do
  made=$out/${library%:*}
  [ -f "$made" ] && continue
  "${CXX:-g++}" -std=c++20 -O2 -Wall -shared -fPIC "$sources/${library#*:}" -o "$made.part" -ldl
  mv "$made.part" "$made"
done
export LD_LIBRARY_PATH=$out${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export CUDA_PATH=$sources KILN_CARD_COMPILER=$sources/compile.py KILN_CARD_MODULES=$out/modules
# The kernels must not get among those that were compiled for a real card.
export XDG_CACHE_HOME=$out/cache
exec "$@"
