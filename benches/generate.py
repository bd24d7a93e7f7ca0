#!/usr/bin/env python3
"""The peer of benches/generate.rs: transformers' generate on the same directory, greedily, with its
KV cache; one JSON line.

usage: benches/generate.py DIR [--quantization nf4] [--batch 1] [--prompt 64] [--new 64] [--rounds 3] [--threads 2] [--bf16]
       [--device cuda]
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu")
    for name, default in (("batch", 1), ("prompt", 64), ("new", 64), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    settings = {"dtype": dtype, "device_map": args.device} if args.device != "cpu" else {"dtype": dtype}
    if args.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(args.dir, **settings).eval()
    torch.manual_seed(7)
    ids = torch.randint(0, model.config.vocab_size, (args.batch, args.prompt)).to(model.device)
    walls, cpus = [], []
    for _ in range(args.rounds + 1):
        wall, cpu = time.perf_counter(), cpu_seconds()
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=args.new,
                min_new_tokens=args.new, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
        # As a list: on a GPU that waits for the tokens.
        assert len(out[0].tolist()) == args.prompt + args.new
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_seconds() - cpu)
    tokens = args.batch * args.new
    print(
        json.dumps(
            {
                "side": "transformers",
                "mode": "nf4" if args.quantization == "nf4" else "dense",
                "precision": "Bf16" if args.bf16 else "F32",
                "device": args.device,
                "batch": args.batch,
                "threads": args.threads,
                "tokens_per_s": tokens / statistics.median(walls[1:]),
                "tokens_per_cpu_s": tokens / statistics.median(cpus[1:]),
            }
        )
    )


main()
