#!/usr/bin/env python3
"""Quantised and merged models go from Kiln to transformers and back.

usage: python tests/python/quantize_roundtrip.py RUN_BINARY MODEL_DIR...

Needs torch, transformers, peft, bitsandbytes, accelerate (pip install them); makes no environment of
its own. For each checkpoint, with double quantisation and without:

  1. `run quantize` writes NF4, transformers quantises and saves the same model: the same tensors to
     the byte, the same quantization_config;
  2. transformers loads what Kiln wrote and gives the same logits as with its own;
  3. Kiln trains a step from both: the same loss, bit for bit, and that of transformers within 2e-5
     (where every linear has rows of whole blocks: in others bitsandbytes' CPU kernel for AVX-512
     takes the maxima of other blocks; tests/python/qlora.py compares those by the definition);

and with a random adapter on all linears: `run merge` gives PEFT's merge_and_unload within 1e-6 on the
dense base, and on the NF4 base the dequantised weights plus the same product.
Everything is written to a temporary folder. Exit status 1 and a line that says what differs.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
except ImportError as missing:
    raise SystemExit(f"{missing}: pip install torch transformers peft bitsandbytes accelerate, then run this again")


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def kiln(run, work, *args):
    done = subprocess.run([run, *map(str, args)], cwd=work, capture_output=True, text=True)
    check(done.returncode == 0, f"run {' '.join(map(str, args))}\n{done.stdout}{done.stderr}")
    return done.stdout


def tensors(directory):
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():
                found[key] = opened.get_tensor(key)
    return found


def same_bytes(ours, theirs, name):
    a, b = tensors(ours), tensors(theirs)
    check(a.keys() == b.keys(), f"{name}: other tensors: {sorted(a.keys() ^ b.keys())[:4]}")
    for key, tensor in a.items():
        fits = tensor.dtype == b[key].dtype and tensor.shape == b[key].shape
        check(fits and torch.equal(tensor.view(torch.uint8) if tensor.ndim else tensor, b[key].view(torch.uint8) if tensor.ndim else b[key]), f"{name}: {key} differs")
    return len(a)


def setting(directory):
    return json.loads((directory / "config.json").read_text())["quantization_config"]


def load(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for module in model.modules():
        # bitsandbytes would compute in bf16 on a CPU that can.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


@torch.no_grad()
def logits(model, rows):
    return [model(input_ids=torch.tensor([ids])).logits[0] for ids, _ in rows]


@torch.no_grad()
def loss(model, rows):
    total, count = 0.0, 0
    for (_, labels), scores in zip(rows, logits(model, rows)):
        targets = torch.tensor(labels[1:])
        total += torch.nn.functional.cross_entropy(
            scores[:-1].double(), targets, ignore_index=-100, reduction="sum"
        ).item()
        count += (targets != -100).sum().item()
    return total / count


def kiln_loss(run, work, model, rows, name):
    """The loss of the first step, before any update."""
    kiln(
        run, work, "train", f"model.path={model}", "task=tokens", "data.path=tokens.jsonl", "training.val_ratio=0",
        "data.test_path=null", f"hydra.run.dir={name}", "lora.dropout=0", "training.max_steps=1",
        "training.warmup_steps=1", "training.logging_steps=1", f"training.batch_size={len(rows)}",
        "training.gradient_accumulation_steps=1", "lora.target_modules=all-linear", "training.max_seq_length=64",
    )  # fmt: skip
    with open(work / name / "metrics.csv") as file:
        return next(csv.DictReader(file))["loss"]


def both(run, work, model, double, name):
    """The model quantised by Kiln and by transformers."""
    ours, theirs = work / f"ours_{name}", work / f"theirs_{name}"
    kiln(run, work, "quantize", f"model.path={model}", f"output={ours}", f"quantization.double_quant={double}".lower())
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=getattr(torch, setting(ours)["bnb_4bit_compute_dtype"]),
    )  # fmt: skip
    made = AutoModelForCausalLM.from_pretrained(model, dtype="auto", quantization_config=settings)
    made.save_pretrained(theirs)
    count = same_bytes(ours, theirs, name)
    check(setting(ours) == setting(theirs), f"{name}: quantization_config is {setting(ours)}")
    return ours, theirs, count


def quantised(run, work, model, rows, double):
    name = "double" if double else "single"
    ours, theirs, count = both(run, work, model, double, name)
    a, b = load(ours), load(theirs)
    for x, y in zip(logits(a, rows), logits(b, rows)):
        check(torch.equal(x, y), f"{name}: transformers gives other logits")
    first, second = (kiln_loss(run, work, path, rows, f"{name}_{path.name}") for path in (ours, theirs))
    check(first == second, f"{name}: loss {first} from ours, {second} from theirs")
    text = f"  {name}: {count} tensors equal to the byte, loss {float(first):.6f}"
    if all(m.in_features % 64 == 0 for m in b.modules() if type(m).__name__ == "Linear4bit"):
        want = loss(b, rows)
        relative = abs(float(first) / want - 1)
        check(relative < 2e-5, f"{name}: loss {first}, transformers has {want}")
        text += f", {relative:.1e} from transformers'"
    print(text)


def merged(run, work, model):
    torch.manual_seed(7)
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, target_modules="all-linear", use_rslora=True)
    peft = get_peft_model(load(model), settings)
    with torch.no_grad():
        for key, parameter in peft.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.05)
    peft.save_pretrained(work / "adapter")
    peft.merge_and_unload().save_pretrained(work / "peft")
    common = [f"model.path={model}", "adapter=adapter"]
    text = kiln(run, work, "merge", *common, "output=dense", "quantization=none", "export.dtype=f32")
    nf4 = kiln(run, work, "merge", *common, "output=nf4", "quantization=nf4", "export.dtype=f32")
    want, dense, onto = (tensors(work / name) for name in ("peft", "dense", "nf4"))
    check(want.keys() == dense.keys() == onto.keys(), "merged: other tensors")
    worst = max((want[key] - dense[key]).abs().max().item() for key in want)
    check(worst < 1e-6, f"merged: {worst} from PEFT's merge_and_unload")
    base, quantised_base = load(model), load(work / "ours_double")
    weights = dict(base.named_modules())
    for key, module in quantised_base.named_modules():
        if type(module).__name__ == "Linear4bit" and module.in_features % 64 == 0:
            import bitsandbytes

            values = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            delta = want[f"{key}.weight"] - weights[key].weight.data
            if type(weights[key]).__name__ == "Conv1D":
                values = values.T
            near = (onto[f"{key}.weight"] - values - delta).abs().max().item()
            check(near < 2e-6, f"merged onto NF4: {key} is {near} away")
    transformers_loads = load(work / "nf4")
    check(transformers_loads is not None, "merged: does not load")
    lines = [line.split("base + adapter: ")[1] for t in (text, nf4) for line in t.splitlines() if line.startswith("logits")]
    print(f"  merged: within {worst:.1e} of PEFT; Kiln says: dense {lines[0]}; NF4 {lines[1]}")


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    run = pathlib.Path(sys.argv[1]).resolve()
    for model in (pathlib.Path(p).resolve() for p in sys.argv[2:]):
        print(model.name)
        with tempfile.TemporaryDirectory() as directory:
            work = pathlib.Path(directory)
            vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
            torch.manual_seed(3)
            rows = []
            for n in (9, 14, 21):
                ids = torch.randint(0, vocabulary, (n,)).tolist()
                rows.append((ids, [-100] * 3 + ids[3:]))
            with open(work / "tokens.jsonl", "w") as file:
                for ids, labels in rows:
                    file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
            if next(iter(tensors(model).values())).dtype != torch.float32:
                _, _, count = both(run, work, model, True, "as_stored")
                print(f"  as stored: {count} tensors equal to the byte")
                # transformers would compute in that type: losses are compared in f32.
                load(model).save_pretrained(work / "f32")
                model = work / "f32"
            for double in (True, False):
                quantised(run, work, model, rows, double)
            merged(run, work, model)
    print("passed")


main()
