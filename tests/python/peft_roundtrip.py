#!/usr/bin/env python3
"""Adapters go from Kiln to PEFT and back, and mean the same on both sides.

usage: python tests/python/peft_roundtrip.py RUN_BINARY MODEL_DIR...

Needs torch, transformers, peft and safetensors (pip install torch transformers peft); makes no
environment of its own. For each checkpoint, of any family:

  1. `run train` trains a few steps, with LoRA, with DoRA, from PiSSA's start, and in one layer with ranks
     and alphas of single modules, which are those that PEFT makes of the same settings; PEFT loads the
     adapter, with every matrix in its place;
  2. PEFT makes an adapter with other targets and rank; `run` loads it with adapter= and
     lora.init_from=;
  3. the same with rank-stabilised scaling, with DoRA, with ranks and alphas of single modules, and in
     some layers only;

and each time: the loss of a batch of tokens equals PEFT's within 2e-5 relative, the greedy answers
of `run infer` equal those of PEFT's generate, both differ from the bare base, and the adapter that
Kiln writes again after a step of learning rate 0 is the same matrices, bit for bit.
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
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as missing:
    raise SystemExit(f"{missing}: pip install torch transformers peft safetensors, then run this again")

TEMPLATE = "{question} Answer:"
NEW_TOKENS = 24
PLAIN = ["quantization=none", "training.max_seq_length=64", f"prompt.template='{TEMPLATE}'", "prompt.answer=' {answer}'"]


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def kiln(run, work, *args):
    """Runs the binary in `work`, which holds its outputs."""
    done = subprocess.run([run, *map(str, args)], cwd=work, capture_output=True, text=True)
    check(done.returncode == 0, f"run {' '.join(map(str, args))}\n{done.stdout}{done.stderr}")


def write_questions(path):
    """Short questions with answers that a few steps move the model towards."""
    names = ["Lily", "Tom", "Ben", "Mia", "Sam", "Anna"]
    things = ["a red ball", "a big dog", "a small boat", "a new hat"]
    rows = [(f"{n} has {t}. What does {n} have?", t) for n in names for t in things]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *rows])
    return [question for question, _ in rows]


def write_tokens(path, tokenizer, questions):
    """Whole sequences as ready tokens; the first five are not supervised."""
    samples = []
    for question in questions:
        ids = tokenizer(question).input_ids
        samples.append((ids, [-100] * 5 + ids[5:]))
    with open(path, "w") as file:
        for ids, labels in samples:
            file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    return samples


@torch.no_grad()
def loss(model, samples):
    """Sum over the supervised tokens / their number."""
    total, count = 0.0, 0
    for ids, labels in samples:
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        targets = torch.tensor(labels[1:])
        total += torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
        count += (targets != -100).sum().item()
    return total / count


@torch.no_grad()
def answers(model, tokenizer, questions):
    texts = []
    for question in questions:
        prompt = tokenizer(TEMPLATE.format(question=question), return_tensors="pt")
        out = model.generate(**prompt, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0)
        new = out[0, prompt.input_ids.shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


class Case:
    def __init__(self, run, model_dir, work):
        self.run, self.model_dir, self.work = run, model_dir, work
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self.questions = write_questions(work / "questions.csv")
        self.samples = write_tokens(work / "tokens.jsonl", self.tokenizer, self.questions)
        self.base_loss = loss(self.base(), self.samples)
        self.base_answers = answers(self.base(), self.tokenizer, self.questions)

    def base(self):
        return AutoModelForCausalLM.from_pretrained(self.model_dir, dtype=torch.float32).eval()

    def train(self, name, *overrides):
        kiln(
            self.run, self.work, "train", f"model.path={self.model_dir}", *PLAIN, "lora.dropout=0",
            "training.val_ratio=0", "data.test_path=null", f"hydra.run.dir={name}", *overrides,
        )  # fmt: skip
        return self.work / name

    def kiln_loss(self, name, adapter):
        """The loss of the first step, which comes before any update; its learning rate is 0."""
        path = self.train(
            name, "task=tokens", "data.path=tokens.jsonl", f"lora.init_from={adapter}",
            "training.max_steps=1", "training.warmup_steps=1", "training.logging_steps=1",
            f"training.batch_size={len(self.samples)}", "training.gradient_accumulation_steps=1",
        )  # fmt: skip
        with open(path / "metrics.csv") as file:
            row = next(csv.DictReader(file))
        check(float(row["learning_rate"]) == 0, f"{name}: the first step has a learning rate")
        before, after = (load_file(d / "adapter_model.safetensors") for d in (adapter, path / "adapter"))
        check(before.keys() == after.keys(), f"{name}: written again, the adapter has other tensors")
        for key, tensor in before.items():
            check(torch.equal(tensor, after[key]), f"{name}: written again, {key} differs")
        settings = [json.loads((d / "adapter_config.json").read_text()) for d in (adapter, path / "adapter")]
        layers = settings[0]["layers_to_transform"] is not None
        for key in ("r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "target_modules", "peft_type", "task_type"):
            if layers and key == "target_modules":
                continue  # whole paths say the same
            a, b = (sorted(s[key]) if key == "target_modules" else s[key] for s in settings)
            check(a == b, f"{name}: written again, {key} is {b}, not {a}")
        return float(row["loss"])

    def kiln_answers(self, name, adapter):
        kiln(
            self.run, self.work, "infer", "task=saq", f"model.path={self.model_dir}", *PLAIN,
            f"adapter={adapter}", "data.test_path=questions.csv", f"output={name}.csv", f"hydra.run.dir={name}",
            f"inference.max_new_tokens={NEW_TOKENS}", "inference.validation.enabled=false",
        )  # fmt: skip
        with open(self.work / f"{name}.csv", newline="") as file:
            # Python counts some control characters as space, Rust does not.
            return [row["prediction"].strip() for row in csv.DictReader(file)]

    def compare(self, name, adapter):
        """What PEFT and Kiln make of the adapter directory."""
        peft = PeftModel.from_pretrained(self.base(), adapter).eval()
        stored = load_file(adapter / "adapter_model.safetensors")
        short = lambda key: key.replace("vector.default.weight", "vector").replace(".default", "")  # noqa: E731
        loaded = {short(k): v for k, v in peft.state_dict().items() if "lora_" in k}
        check(loaded.keys() == stored.keys(), f"{name}: PEFT has other LoRA matrices than the file")
        check(all(torch.equal(loaded[k], v) for k, v in stored.items()), f"{name}: PEFT read other numbers")

        want, got = loss(peft, self.samples), self.kiln_loss(f"{name}_loss", adapter)
        relative = abs(got / want - 1)
        check(relative < 2e-5, f"{name}: loss {got}, PEFT has {want}")
        moved = abs(want / self.base_loss - 1)
        check(moved > 1e-3, f"{name}: the adapter does not change the loss")

        theirs = answers(peft, self.tokenizer, self.questions)
        ours = self.kiln_answers(f"{name}_infer", adapter)
        check(len(ours) == len(theirs), f"{name}: {len(ours)} answers to {len(theirs)} questions")
        for question, a, b in zip(self.questions, ours, theirs):
            check(a == b, f"{name}: {question!r}: Kiln answers {a!r}, PEFT {b!r}")
        changed = sum(a != b for a, b in zip(theirs, self.base_answers))
        check(changed > 0, f"{name}: no answer differs from the base's")
        print(
            f"  {name}: {len(stored)} matrices, loss {got:.6f} (base {self.base_loss:.6f}), "
            f"{relative:.1e} from PEFT's; {len(ours)} answers equal, {changed} differ from the base's"
        )

    def peft_adapter(self, name, **settings):
        """A random adapter as PEFT saves it; B is not 0, so that it does something."""
        torch.manual_seed(7)
        peft = get_peft_model(self.base(), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.1)
                if "lora_magnitude_vector" in key:
                    parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
        peft.save_pretrained(self.work / name)
        return self.work / name

    def same_modules(self, name, adapter, **settings):
        """PEFT makes of the settings the modules, ranks and factors of the adapter."""
        wanted = get_peft_model(self.base(), LoraConfig(task_type="CAUSAL_LM", **settings))
        found = PeftModel.from_pretrained(self.base(), adapter)
        scales = [
            {key: (module.r["default"], module.scaling["default"]) for key, module in model.named_modules() if hasattr(module, "lora_A")}
            for model in (wanted, found)
        ]
        check(scales[0] == scales[1], f"{name}: modules, ranks and factors are {scales[1]}, PEFT makes {scales[0]}")
        check(len({r for r, _ in scales[0].values()}) > 1, f"{name}: all ranks are the same")


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    run = pathlib.Path(sys.argv[1]).resolve()
    for model_dir in (pathlib.Path(p).resolve() for p in sys.argv[2:]):
        print(model_dir.name)
        with tempfile.TemporaryDirectory() as work:
            case = Case(run, model_dir, pathlib.Path(work))
            gpt2 = json.loads((model_dir / "config.json").read_text())["model_type"] == "gpt2"
            steps = ["training.max_steps=8", "training.learning_rate=1e-2", "lora.target_modules=all-linear"]
            kinds = {
                "kiln": [],
                "kiln_dora": ["lora.use_dora=true"],
                "kiln_pissa": ["lora.init_lora_weights=pissa"],
            }
            for name, kind in kinds.items():
                more = ["lora.r=8", *kind]
                trained = case.train(name, "task=saq", "data.path=questions.csv", *more, *steps)
                case.compare(name, trained / "adapter")
            last = "mlp.c_proj" if gpt2 else "down_proj"
            every = ["c_attn", "c_proj", "c_fc"] if gpt2 else [f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down")]
            own = {
                "exclude_modules": [last], "layers_to_transform": [1],
                "rank_pattern": {"1.mlp.*": 9, "c_attn" if gpt2 else "q_proj": 5},
                "alpha_pattern": {"c_fc" if gpt2 else "up_proj": 20},
            }  # fmt: skip
            (case.work / "own.yaml").write_text("defaults: [config, _self_]\nlora: " + json.dumps(own) + "\n")
            file = ["--config-dir", case.work, "--config-name", "own"]
            trained = case.train("kiln_own", *file, "task=saq", "data.path=questions.csv", "lora.r=8", *steps)
            case.same_modules("kiln_own", trained / "adapter", r=8, lora_alpha=32, target_modules=every, **own)
            case.compare("kiln_own", trained / "adapter")
            names = ["c_attn", "mlp.c_proj"] if gpt2 else ["q_proj", "v_proj", "down_proj"]
            targets = dict(r=4, lora_alpha=12, target_modules=names, fan_in_fan_out=gpt2)
            case.compare("peft", case.peft_adapter("made", **targets))
            case.compare("peft_rslora", case.peft_adapter("made_rs", use_rslora=True, **targets))
            case.compare("peft_dora", case.peft_adapter("made_dora", use_dora=True, **targets))
            q, down = names[0], names[-1].rsplit(".")[-1]
            patterns = dict(rank_pattern={f"0.*{q}": 7, q: 2, f"^.*{down}$": 3}, alpha_pattern={down: 5})
            case.compare("peft_patterns", case.peft_adapter("made_patterns", **targets, **patterns))
            case.compare("kiln_patterns", case.work / "peft_patterns_loss" / "adapter")
            case.compare("peft_layers", case.peft_adapter("made_layers", layers_to_transform=[1], **targets))
            case.compare("kiln_layers", case.work / "peft_layers_loss" / "adapter")
    print("passed")


main()
