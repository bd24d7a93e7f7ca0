#!/usr/bin/env bash
# Compiles every CUDA C++ kernel of src/ops/gpu/cuda for sm_90a without a GPU or a toolkit: NVRTC,
# then ptxas, both from PyPI wheels kept in target/cuda_check. Prints one line a kernel and fails
# on a compile error, on a spill, and on a serialised wgmma.
#   scripts/check-cuda.sh [FILE.cu ...] [-- options of scripts/check_cuda.py]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${KILN_CUDA_CHECK:-${CARGO_TARGET_DIR:-$root/target}/cuda_check}
stamp=$venv/wheels-13.0
if [ ! -f "$stamp" ]; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' \
        'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' \
        nvidia-cuda-nvdisasm
    touch "$stamp"
fi
exec "$venv/bin/python" "$root/scripts/check_cuda.py" "$@"
