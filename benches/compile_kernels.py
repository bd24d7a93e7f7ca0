#!/usr/bin/env python3
"""What NVIDIA's compilers need for the kernels of a run that finds none compiled, without a card.

The stand-in for NVRTC keeps the text of every kernel that a run asks for:
  CARGO_TARGET_DIR=DIR scripts/without-card.sh target/release/run train device=cuda training.bf16=true ...
Then, with the Python that scripts/check-cuda.sh has made:
  target/cuda_check/bin/python benches/compile_kernels.py DIR/standin/*/modules
compiles each, one after the other: NVRTC, then ptxas, whose place in a run the driver takes.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
import check_cuda  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--arch", default="sm_90a")
    args = parser.parse_args()
    rows = []
    for path in sorted(glob.glob(os.path.join(args.folder, "*.cu"))):
        with open(path) as file:
            text = file.read()
        began = time.process_time()
        ptx, _ = check_cuda.nvrtc(text, args.arch)
        compiled = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "k.ptx"), "w") as file:
                file.write(ptx)
            began = os.times().children_user
            subprocess.run([check_cuda.ROOT + "/bin/ptxas", "-arch=" + args.arch, os.path.join(folder, "k.ptx"), "-o",
                            os.path.join(folder, "k.cubin")], check=True)
            assembled = os.times().children_user - began
        entry = next(line for line in ptx.splitlines() if ".entry" in line).split()[-1].rstrip("(")
        rows.append((compiled, assembled, entry))
        print(f"{compiled:6.2f} s NVRTC {assembled:6.2f} s ptxas  {entry}")
    print(f"{len(rows)} kernels: NVRTC {sum(r[0] for r in rows):.1f} s, ptxas {sum(r[1] for r in rows):.1f} s of CPU time")


if __name__ == "__main__":
    main()
