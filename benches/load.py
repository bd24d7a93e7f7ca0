#!/usr/bin/env python3
"""What loading and quantising costs beside reading the file.

    benches/load.py DIR [--layers 2] [--rounds 5]

Writes a random bf16 checkpoint of the Llama-3-8B shape with few layers and a small vocabulary into
DIR (about 0.44 GB a layer; kept for the next call), builds benches/load.rs, and alternates `cat FILE
> /dev/null`, loading with NF4, and `run quantize`. Prints medians; needs no packages.
"""

import argparse
import array
import json
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import time

HIDDEN, WIDE, KV, VOCABULARY = 4096, 14336, 1024, 4096


def shapes(layers):
    found = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (KV, HIDDEN),
            "self_attn.v_proj": (KV, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (WIDE, HIDDEN),
            "mlp.up_proj": (WIDE, HIDDEN),
            "mlp.down_proj": (HIDDEN, WIDE),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }.items():
            found[f"{prefix}.{name}.weight"] = shape
    return found


def write(directory, layers):
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "intermediate_size": WIDE, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": layers, "vocab_size": VOCABULARY, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "max_position_embeddings": 8192,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    # A million normal numbers, repeated from other starts: what they are costs no time to quantise.
    random.seed(1)
    numbers = array.array("f", (random.gauss(0, 0.02) for _ in range(1 << 20))).tobytes()
    halves = bytearray(1 << 21)
    halves[0::2], halves[1::2] = numbers[2::4], numbers[3::4]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in sorted(shapes(layers).items()):
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left, turn = offset, 0
        while left > 0:
            start = 2 * (turn * 7919 % 1000)
            piece = halves[start : start + min(left, len(halves) - start)]
            file.write(piece)
            left, turn = left - len(piece), turn + 1


def measured(command):
    """Wall and CPU seconds and peak memory of a process."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, shell=isinstance(command, str))
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command}: status {status}")
    wall = time.monotonic() - began
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}, output


def median(rows, key):
    values = sorted(row[key] for row in rows)
    return values[len(values) // 2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    file = args.dir / "model.safetensors"
    if not file.is_file():
        write(args.dir, args.layers)
    build = ["cargo", "build", "--release", "--bench", "load", "--bin", "run"]
    subprocess.run(build, cwd=root, check=True, stderr=subprocess.DEVNULL)
    found = [p for p in (root / "target/release/deps").glob("load-*") if not p.suffix]
    bench = max(found, key=lambda p: p.stat().st_mtime)
    out = args.dir / "quantised"
    cats, loads, inner, quantised = [], [], [], []
    for _ in range(args.rounds):
        cats.append(measured(f"cat {file} > /dev/null")[0])
        row, text = measured([str(bench), "--dir", str(args.dir)])
        loads.append(row)
        inner.append(json.loads(text))
        shutil.rmtree(out, ignore_errors=True)
        command = [str(root / "target/release/run"), "quantize", f"model.path={args.dir}", f"output={out}"]
        quantised.append(measured(command)[0])
    shutil.rmtree(out, ignore_errors=True)
    gigabytes = file.stat().st_size / 1e9
    print(f"{gigabytes:.2f} GB in bf16, medians of {args.rounds}, load average {os.getloadavg()[0]:.1f}")
    for name, rows in (("cat", cats), ("load as NF4", loads), ("run quantize", quantised)):
        wall, cpu, peak = (median(rows, key) for key in ("wall_s", "cpu_s", "peak_bytes"))
        print(f"{name:13} {wall:6.2f} s wall {cpu:6.2f} s CPU {peak / 2**20:7.0f} MiB peak")
    held, largest = inner[0]["held_bytes"], inner[0]["largest_tensor_bytes"]
    allowed = 1.1 * held + largest
    print(f"held {held / 2**20:.0f} MiB, largest tensor in f32 {largest / 2**20:.0f} MiB: allowed {allowed / 2**20:.0f} MiB")
    ratio = median(inner, "wall_s") / median(cats, "wall_s")
    print(f"load / cat: {ratio:.2f} by wall time, without the start of the process")


main()
