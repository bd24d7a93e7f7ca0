#!/usr/bin/env bash
# The same as `cargo test --test cuda_kernels`, without cargo, printing what each program says.
#   tests/cuda_emulation/run.sh [SEED]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
grep -v '^#' "$here/variants.txt" | while read -r program flags; do
    [ -n "$program" ] || continue
    echo "== $program $flags"
    # shellcheck disable=SC2086
    ${CXX:-g++} -std=c++20 -O2 -ffp-contract=off -DKILN_EMULATE -Wall -Werror -Wno-unknown-pragmas \
        -I "$here" $flags "$here/$program.cpp" -o "$out/program"
    "$out/program" "$@"
done
