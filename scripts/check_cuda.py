#!/usr/bin/env python3
"""Compiles the CUDA C++ kernels for sm_90a without a GPU and prints what ptxas made of them.

Every .cu file lists its variants in lines `// variant: NAME ENTRY [-DNAME=VALUE ...]`, and the
architectures that it is compiled for besides in a line `// elsewhere: sm_80 ... [for PART]`, PART of the
names of the variants: there with dynamic shared memory, since ptxas allows 48 KiB of static memory. Each variant is pasted together as the Rust
side does it (`#include "x"` replaced by the file's text, defines put in front), compiled by NVRTC with
cubecl's options, assembled by ptxas and disassembled. Fails on a compile error, a spill, a stack frame, a warning that wgmma was serialised, or more shared memory
than the launch may ask for.
"""
import argparse
import collections
import concurrent.futures
import ctypes
import glob
import os
import re
import subprocess
import sys
import tempfile
import time

import nvidia

ROOT = next(p for p in glob.glob(os.path.join(list(nvidia.__path__)[0], "cu1*")))
KERNELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src/ops/gpu/cuda")
# What ptxas 13.0 and the card allow one block of sm_90a.
STATIC_SHARED_LIMIT = 227 * 1024
DYNAMIC = "-DKILN_DYNAMIC_SHARED=1"


def paste(path, seen=None):
    """The file with its own headers pasted in, each once."""
    seen = set() if seen is None else seen
    text = []
    with open(path) as file:
        for line in file:
            include = re.match(r'\s*#include "([^"]+\.cuh)"', line)
            if not include:
                text.append(line)
                continue
            header = os.path.join(os.path.dirname(path), include.group(1))
            if header not in seen:
                seen.add(header)
                text.append(paste(header, seen))
    return "".join(text)


def variants(path):
    with open(path) as file:
        for line in file:
            match = re.match(r"// variant: (\S+) (\S+)(.*)", line)
            if match:
                yield match.group(1), match.group(2), match.group(3).split()


def elsewhere(path):
    """The variants for other architectures."""
    with open(path) as file:
        found = re.search(r"^// elsewhere: ([\w ]+?)(?: for (\w+))?$", file.read(), re.M)
    for arch in found.group(1).split() if found else []:
        for name, entry, defines in variants(path):
            if DYNAMIC not in defines and (found.group(2) or "") in name:
                yield f"{name}_{arch}", entry, defines + [DYNAMIC], arch


def nvrtc(source, arch):
    for builtins in glob.glob(ROOT + "/lib/libnvrtc-builtins.so*"):
        ctypes.CDLL(builtins, mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(glob.glob(ROOT + "/lib/libnvrtc.so.1*")[0])
    program = ctypes.c_void_p()
    if lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None):
        raise RuntimeError("nvrtcCreateProgram failed")
    # cubecl says sm_90a, which has NVRTC assemble too; ptxas does that here.
    options = [f"--gpu-architecture={arch.replace('sm_', 'compute_')}", f"--include-path={ROOT}/include",
               f"--include-path={ROOT}/include/cccl", "-lineinfo"]
    array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    result = lib.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    if result:
        raise RuntimeError(log.value.decode())
    lib.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetPTX(program, ptx)
    return ptx.value.decode(), log.value.decode().strip()


def check(job):
    path, name, entry, defines, arch, keep = job
    row = {"name": name, "bad": [], "notes": []}
    begin = time.time()
    try:
        head = "".join("#define " + d[2:].replace("=", " ", 1) + "\n" for d in defines)
        ptx, log = nvrtc(head + paste(path), arch)
    except RuntimeError as error:
        row["bad"].append(f"NVRTC: {error}")
        return row
    if log:
        row["notes"].append("NVRTC: " + log)
    if f".entry {entry}(" not in ptx:
        row["bad"].append(f"no entry {entry} in the PTX")
    with tempfile.TemporaryDirectory() as folder:
        ptx_path, cubin = os.path.join(folder, "k.ptx"), os.path.join(folder, "k.cubin")
        with open(ptx_path, "w") as file:
            file.write(ptx)
        ptxas = subprocess.run([ROOT + "/bin/ptxas", "-arch=" + arch, "-v", "-warn-spills", ptx_path, "-o", cubin],
                               capture_output=True, text=True)
        if ptxas.returncode:
            row["bad"].append("ptxas: " + ptxas.stderr)
            return row
        for line in re.findall(r"(?:warning|info)\s*: (.*(?:erializ|setmaxnreg|egister count|spill).*)", ptxas.stderr):
            if "bytes spill stores" in line:
                continue
            row["bad" if "erializ" in line or "ignored" in line else "notes"].append(line)
        for match in re.finditer(r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, "
                                 r"(\d+) bytes spill loads\nptxas info\s*: Used (\d+) registers(.*)", ptxas.stderr):
            function, stack, stores, loads, registers, rest = match.groups()
            if function != entry:
                continue
            shared = re.search(r"(\d+) bytes smem", rest)
            row.update(registers=int(registers), stack=int(stack), spills=int(stores) + int(loads),
                       shared=int(shared.group(1)) if shared else 0)
            if row["spills"]:
                row["bad"].append(f"{stores} bytes of spill stores, {loads} of loads")
            if row["stack"]:
                row["bad"].append(f"a stack frame of {stack} bytes")
            if row["shared"] > STATIC_SHARED_LIMIT:
                row["bad"].append(f"{row['shared']} bytes of static shared memory")
        sass = subprocess.run([ROOT + "/bin/nvdisasm", "-c", cubin], capture_output=True, text=True).stdout
        if keep:
            os.makedirs(keep, exist_ok=True)
            for suffix, text in (("ptx", ptx), ("sass", sass)):
                with open(os.path.join(keep, f"{name}.{suffix}"), "w") as file:
                    file.write(text)
    ops = collections.Counter(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", sass, re.M))
    row.update(ops=ops, total=sum(ops.values()), seconds=time.time() - begin)
    if not row["total"]:
        row["bad"].append("nothing disassembled")
    if "registers" not in row:
        row["bad"].append("ptxas printed no properties")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="all of src/ops/gpu/cuda when none is given")
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--keep", help="folder for the PTX and SASS")
    parser.add_argument("--only", default="", help="part of a variant's name")
    parser.add_argument("--ops", action="store_true", help="the commonest SASS opcodes of each variant")
    args = parser.parse_args()
    files = args.files or sorted(glob.glob(os.path.join(KERNELS, "*.cu")))
    jobs, failed = [], 0
    for path in files:
        found = [(path, n, e, d, args.arch, args.keep) for n, e, d in variants(path) if args.only in n]
        if not args.only and not found:
            print(f"{os.path.basename(path)}: no variant line")
            failed += 1
        jobs += found
        if args.arch == "sm_90a":
            jobs += [(path, n, e, d, arch, args.keep) for n, e, d, arch in elsewhere(path) if args.only in n]
    print(f"{'variant':34} {'regs':>4} {'spill':>5} {'static smem':>11} {'SASS':>6} {'HGMMA':>5} {'HMMA':>5} {'s':>5}")
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for row in pool.map(check, jobs):
            ops = row.get("ops", {})
            if "registers" in row:
                print(f"{row['name']:34} {row['registers']:4} {row['spills']:5} {row['shared']:11} {row['total']:6} "
                      f"{ops.get('HGMMA', 0):5} {ops.get('HMMA', 0):5} {row['seconds']:5.1f}")
            if args.ops and ops:
                print("   ", ", ".join(f"{k} {v}" for k, v in ops.most_common(20)))
            for note in row["notes"]:
                print("    note:", note)
            for bad in row["bad"]:
                print(f"    FAILED {row['name']}: {bad}")
            failed += bool(row["bad"])
    print(f"{len(jobs) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not jobs else 0)


if __name__ == "__main__":
    main()
