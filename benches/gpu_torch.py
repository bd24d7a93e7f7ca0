#!/usr/bin/env python3
"""The peers of `gpu bench` on the same card: QLoRA and LoRA steps in torch at the same shape.

usage: gpu_torch.py write DIR [--shape 8b]     a random checkpoint, made on the GPU: bf16 shards, HF layout
       gpu_torch.py ceilings                   the card's copy bandwidth and bf16 product rate
       gpu_torch.py bench DIR [options]        one JSON line a variant and mode

Variants, each in a process of its own and only where its packages are:
  a  QLoRA: transformers, PEFT, bitsandbytes NF4 with double quantisation
  b  QLoRA: NF4 by torchao, compiled layers, SDPA
  c  QLoRA: NF4 by hand, compiled layers, SDPA; only where neither bitsandbytes nor torchao is
  d  LoRA:  dense bf16, compiled layers, SDPA
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time

BEGAN = time.time()
NAMES = {
    "a": "qlora-peft-bitsandbytes",
    "b": "qlora-torchao-compiled",
    "c": "qlora-by-hand-compiled",
    "d": "lora-bf16-compiled",
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "ceilings", "bench"])
    parser.add_argument("dir", nargs="?")
    parser.add_argument("--shape", choices=["8b", "tiny"], default="8b")
    parser.add_argument("--variants", default="a,b,c,d")
    parser.add_argument("--checkpointing", choices=["true", "false", "both"], default="both")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=120, help="seconds a variant and mode")
    parser.add_argument("--at-most", type=float, default=1e9, help="seconds for all of them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what != "ceilings" and not args.dir:
        parser.error("DIR is missing")
    return args


def there(package):
    return importlib.util.find_spec(package) is not None


def missing(variant):
    """What keeps a variant from running, or None."""
    needs = {"a": ["transformers", "peft", "bitsandbytes"], "b": ["torchao"]}.get(variant, [])
    absent = [package for package in needs if not there(package)]
    if absent:
        return "not installed: " + ", ".join(absent)
    if variant == "c" and (there("bitsandbytes") or there("torchao")):
        return "a package has NF4"
    return None


def bench(args):
    """Each variant and mode in a process of its own: memory and start-up are counted by process."""
    modes = {"both": ["true", "false"]}.get(args.checkpointing, [args.checkpointing])
    ran = 0
    for variant in args.variants.split(","):
        reason = missing(variant)
        if reason:
            print(f"{NAMES[variant]}: left out, {reason}", file=sys.stderr)
            continue
        for mode in modes:
            left = args.at_most - (time.time() - BEGAN)
            if left < 20:
                print(f"{NAMES[variant]} checkpointing={mode}: left out, no time", file=sys.stderr)
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--one", variant, "--checkpointing", mode]
            env = dict(os.environ)
            # Less fragmentation: the peer's memory at its best.
            env.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
            try:
                done = subprocess.run(command, env=env, timeout=min(left, args.timeout), stdout=subprocess.PIPE)
            except subprocess.TimeoutExpired:
                print(f"{NAMES[variant]} checkpointing={mode}: out of time", file=sys.stderr)
                continue
            sys.stdout.write(done.stdout.decode())
            sys.stdout.flush()
            ran += done.returncode == 0
            if done.returncode:
                print(f"{NAMES[variant]} checkpointing={mode}: exit {done.returncode}", file=sys.stderr)
    return 0 if ran else 1


def one(args):
    import threading

    import torch

    checkpointing, device = args.checkpointing == "true", torch.device(args.device)
    watch = Watch(threading)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    loading = time.time()
    if args.one == "a":
        loss_of, trainable, vocabulary = with_peft(args, checkpointing)
    else:
        from gpu_llama import Decoder

        kind = {"b": "torchao", "c": "nf4", "d": "dense"}[args.one]
        model = Decoder(args.dir, kind, args.rank, checkpointing, device, not args.no_compile)
        trainable = [p for p in model.parameters() if p.requires_grad]
        loss_of, vocabulary = model, model.config["vocab_size"]
    cuda = device.type == "cuda"
    sync = torch.cuda.synchronize if cuda else lambda: None
    sync()
    load_s = time.time() - loading
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0.0, fused=cuda)
    losses, marks, first = [], [], None
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            sync()
            marks.append(time.time())
        ids = torch.randint(vocabulary, (args.batch, args.seq), device=device)
        loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if first is None:
            sync()
            first = time.time() - BEGAN
        if marks:
            marks.append(time.time())
    sync()
    times = sorted(b - a for a, b in zip(marks, marks[1:]))
    tokens, middle = args.batch * args.seq, times[len(times) // 2]
    report = {
        "side": "torch",
        "variant": NAMES[args.one],
        "checkpointing": checkpointing,
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name() if cuda else None,
        "batch": args.batch,
        "seq": args.seq,
        "rank": args.rank,
        "first_step_s": first,
        "load_s": load_s,
        "timed_steps": len(times),
        "step_s": middle,
        "step_s_p10": times[len(times) // 10],
        "step_s_p90": times[-1 - len(times) // 10],
        "tokens_per_s": tokens / middle,
        "tokens_per_s_mean": tokens * len(times) / sum(times),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "smi_peak_bytes": watch.end(),
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }
    print(json.dumps(report), flush=True)


def with_peft(args, checkpointing):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(
        args.dir,
        dtype=torch.bfloat16,
        attn_implementation="sdpa",
        device_map={"": 0},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    )
    # Not prepare_model_for_kbit_training: it would hold embedding and head in f32.
    model.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    return lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss, trainable, model.config.vocab_size


class Watch:
    """The card's memory above what was in use at the start, by NVML, each 200 ms."""

    def __init__(self, threading):
        self.nvml, self.peak, self.done = self.open(), None, threading.Event()
        if self.nvml:
            self.before, self.peak = self.used(), 0
            self.thread = threading.Thread(target=self.watch, daemon=True)
            self.thread.start()

    def open(self):
        import ctypes

        class Memory(ctypes.Structure):
            _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

        for name in ("libnvidia-ml.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1"):
            try:
                library = ctypes.CDLL(name)
            except OSError:
                continue
            handle = ctypes.c_void_p()
            if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
                return None
            memory = Memory()
            return lambda: library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) or memory.used
        return None

    def used(self):
        return self.nvml()

    def watch(self):
        while not self.done.wait(0.2):
            self.peak = max(self.peak, self.used() - self.before)

    def end(self):
        self.done.set()
        return self.peak


def main():
    args = parse()
    if args.one:
        return one(args)
    if args.what == "bench":
        return bench(args)
    import gpu_prepare

    return {"write": gpu_prepare.write, "ceilings": gpu_prepare.ceilings}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
