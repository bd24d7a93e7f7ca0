#!/usr/bin/env python3
"""Real input: 50 steps of QLoRA on real SQuAD with a really trained small model.

usage: python tests/python/squad_story.py RUN_BINARY [SHARED_DIR]     default: the folder shared beside the project

Needs torch, transformers, peft, bitsandbytes and safetensors; makes no environment of its own.

  1. The validation loss before any training, by one step of learning rate 0.
  2. `run train` for 50 steps: the validation loss falls at each validation.
  3. PEFT loads the adapter. On the weights as bitsandbytes packs and unpacks them its loss on 40
     questions, tokenised here, equals Kiln's within 2e-5 relative; on bitsandbytes' 4-bit layers,
     which multiply in less than f32 on some CPUs, within 1e-3.

The model tells children's stories and knows nothing that SQuAD asks, so its test score stays near 0:
the loss is what this shows. The scored questions are some of the training file's and only show that
scoring runs. Prints every command; exit status 1 and a line that says what is wrong.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import bitsandbytes.functional as bnb
    import torch
    import transformers
    from peft import PeftModel
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
except ImportError as missing:
    raise SystemExit(f"{missing}: pip install torch transformers peft bitsandbytes safetensors, then run this again")

QUESTIONS = 40
LONGEST = 512
END = 2


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def kiln_train(run, work, name, *overrides):
    args = ["train", *overrides, f"hydra.run.dir={name}"]
    print("$ run", " ".join(args), flush=True)
    done = subprocess.run([run, *args], cwd=work, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="", flush=True)
    check(done.returncode == 0, f"exit status {done.returncode}")
    with open(work / name / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [[float(r["loss"]) for r in rows if r["split"] == split] for split in ("train", "val")]


def encode(tokenizer, context, question, answer):
    """The prompt masked, the answer and the end token supervised. Tokenised by tokenizer.json as it
    is: transformers 5 rebuilds Llama tokenizers and gives other tokens for a text that begins with a space."""
    prompt_text = f"Context: {context} Question: {question} Answer:"
    prompt = tokenizer.encode(prompt_text).ids
    whole = tokenizer.encode(f"{prompt_text} {answer}").ids
    # Where a token would reach across the boundary, the two parts are tokenised on their own.
    joined = whole[: len(prompt)] == prompt
    target = whole[len(prompt) :] if joined else tokenizer.encode(f" {answer}", add_special_tokens=False).ids
    target = target + [END]
    return prompt + target, [-100] * len(prompt) + target


def some_questions(tokenizer, squad, path):
    """The first questions of each article that fit, as SQuAD JSON in `path` and as tokens."""
    kept, samples = [], []
    for article in json.loads(squad.read_text())["data"]:
        for paragraph in article["paragraphs"][:2]:
            asked = paragraph["qas"][0]
            ids, labels = encode(
                tokenizer, paragraph["context"], asked["question"].strip(), asked["answers"][0]["text"].strip()
            )
            if len(ids) <= LONGEST and len(samples) < QUESTIONS:
                samples.append((ids, labels))
                kept.append({"title": article["title"], "paragraphs": [{**paragraph, "qas": [asked]}]})
    check(len(samples) == QUESTIONS, f"only {len(samples)} questions fit")
    path.write_text(json.dumps({"version": "1.1", "data": kept}))
    return samples


def bnb_layers(model_dir):
    """The base with bitsandbytes' 4-bit layers."""
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, device_map="cpu", quantization_config=quantised
    )


@torch.no_grad()
def bnb_weights(model_dir):
    """The base with the f32 weights that bitsandbytes' NF4 stands for."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed, state = bnb.quantize_4bit(module.weight.data, blocksize=64, compress_statistics=True, quant_type="nf4")
            module.weight.copy_(bnb.dequantize_4bit(packed, state))
    return model


def peft(base, adapter):
    """The base with the adapter, every matrix of which must be in its place."""
    model = PeftModel.from_pretrained(base, adapter).eval()
    stored = load_file(adapter / "adapter_model.safetensors")
    loaded = {k.replace(".default", ""): v for k, v in model.state_dict().items() if "lora_" in k}
    check(loaded.keys() == stored.keys(), "PEFT has other LoRA matrices than the file")
    check(all(torch.equal(loaded[k], v) for k, v in stored.items()), "PEFT read other numbers")
    return model


@torch.no_grad()
def loss(model, samples):
    """Sum over the supervised tokens / their number."""
    total, count = 0.0, 0
    for ids, labels in samples:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        targets = torch.tensor(labels[1:])
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        count += (targets != -100).sum().item()
    return total / count


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    run = pathlib.Path(sys.argv[1]).resolve()
    shared = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else root.parent / "shared"
    model_dir, squad = shared / "data/story-llama", shared / "data/squad/dev-v1.1-part1.json"
    check(model_dir.is_dir() and squad.is_file(), f"{shared}/data has no story-llama or no squad")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "shared").symlink_to(shared)
        data = "data.path=shared/data/squad/dev-v1.1-part1.json"
        common = ["model.path=shared/data/story-llama", "task=squad", f"training.max_seq_length={LONGEST}"]
        sizes = ["lora.target_modules=all-linear", "training.val_ratio=0.05"]
        still = ["training.max_steps=1", "training.warmup_steps=1", "data.test_path=null"]

        _, [before] = kiln_train(run, work, "before", *common, data, *sizes, *still)
        _, after = kiln_train(
            run, work, "tuned", *common, data, *sizes, "training.max_steps=50", "training.eval_steps=10",
            "training.learning_rate=1e-3", "data.test_path=shared/data/squad/dev-v1.1-part1.json",
            "task.max_test_examples=20",
        )  # fmt: skip
        losses = [before, *after]
        print("validation loss before, and after every 10 steps:", " ".join(f"{loss:.4f}" for loss in losses))
        check(len(after) == 5 and all(b < a for a, b in zip(losses, losses[1:])), "the validation loss does not fall")

        samples = some_questions(Tokenizer.from_file(str(model_dir / "tokenizer.json")), squad, work / "some.json")
        adapter = work / "tuned/adapter"
        [[ours], _] = kiln_train(
            run, work, "again", *common, "data.path=some.json", f"lora.init_from={adapter.relative_to(work)}",
            "lora.dropout=0", "training.val_ratio=0", "training.logging_steps=1",
            f"training.batch_size={QUESTIONS}", "training.gradient_accumulation_steps=1", *still,
        )  # fmt: skip
        print(f"loss on {QUESTIONS} questions with the adapter: Kiln {ours:.6f}")
        for name, base, most in [("weights", bnb_weights, 2e-5), ("layers", bnb_layers, 1e-3)]:
            model = peft(base(model_dir), adapter)
            theirs = loss(model, samples)
            with model.disable_adapter():
                bare = loss(model, samples)
            relative = abs(ours / theirs - 1)
            print(f"PEFT, bitsandbytes' {name}: {theirs:.6f}, {relative:.1e} apart; without the adapter {bare:.6f}")
            check(relative < most, "the losses differ")
            check(theirs < bare, "the adapter does not help")
    print("passed")


main()
