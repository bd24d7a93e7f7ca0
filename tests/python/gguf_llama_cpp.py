"""A merged model as GGUF against llama.cpp: tokens, logits and greedy answers.

    python tests/python/gguf_llama_cpp.py RUN MODEL --torch-python PYTHON

RUN is the built binary, MODEL a Llama directory with weights and tokenizer. This
Python needs llama-cpp-python, gguf and safetensors; PYTHON needs torch and
transformers, which give the logits of the merged safetensors. A random adapter on
all linears is merged, so that every matrix changes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TEXTS = [
    "Once upon a time there was a little girl who lived in a small house.",
    "Question: What color is the sky?\nA) blue\nB) green\nAnswer:",
    "The dog and the cat   are friends, and they play.",
]
STEPS = 24

REFERENCE = r"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
directory, texts, steps = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(directory)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
# llama.cpp knows no sliding window in these families: up to its length it is the same.
window = getattr(model.config, "sliding_window", None) or 256
rows = []
with torch.no_grad():
    for text in texts:
        ids = tokenizer(text)["input_ids"][: max(window - 4, 1)]
        logits = model(torch.tensor([ids])).logits[0]
        answer = list(ids)
        for _ in range(min(steps, window - len(ids))):
            answer.append(int(model(torch.tensor([answer])).logits[0, -1].argmax()))
        rows.append({"ids": ids, "logits": logits.tolist(), "answer": answer[len(ids):]})
json.dump(rows, sys.stdout)
"""


def write_adapter(model: Path, to: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((model / "config.json").read_text())
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    heads, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    random, tensors = np.random.default_rng(7), {}
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in shapes.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            a = random.normal(0, columns**-0.5, (4, columns))
            b = random.normal(0, 0.02, (rows, 4))
            tensors[f"{key}.lora_A.weight"] = a.astype("float32")
            tensors[f"{key}.lora_B.weight"] = b.astype("float32")
    to.mkdir()
    save_file(tensors, str(to / "adapter_model.safetensors"))
    names = sorted({name.rsplit(".", 1)[-1] for name in shapes})
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": names}
    (to / "adapter_config.json").write_text(json.dumps(settings))


# Share of positions with the same likeliest token. In f32 greedy answers must be
# equal as well; llama.cpp rounds activations to the type of the weights.
SHARES = {"f32": 1.0, "f16": 0.95, "q8_0": 0.85}


def check(file: Path, rows: list) -> bool:
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        str(file), n_ctx=256, logits_all=True, verbose=False, n_threads=2, type_k=0, type_v=0
    )
    worst, same, total, good, answers = 0.0, 0, 0, True, 0
    for text, row in zip(TEXTS, rows):
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        bos = [model.token_bos()] if model.metadata["tokenizer.ggml.add_bos_token"] == "true" else []
        if (bos + ids)[: len(row["ids"])] != row["ids"]:
            print(f"{file.name}: tokens differ: {bos + ids} {row['ids']}")
            good = False
        model.reset()
        model.eval(row["ids"])
        logits = np.array(model.scores[: len(row["ids"])])
        wanted = np.array(row["logits"])
        worst = max(worst, float(np.abs(logits - wanted).max()))
        same += int((logits.argmax(1) == wanted.argmax(1)).sum())
        total += len(wanted)
        answer = [int(logits[-1].argmax())]
        while len(answer) < len(row["answer"]):
            model.eval([answer[-1]])
            answer.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        answers += answer == row["answer"]
    print(
        f"{file.name}: logits within {worst:.2e}, same likeliest token at {same} of {total}"
        f", all greedy tokens of {answers} of {len(rows)} texts"
    )
    exact = file.stem != "f32" or answers == len(rows)
    return good and exact and same >= SHARES[file.stem] * total


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("model", type=Path)
    parser.add_argument("--torch-python", required=True)
    args = parser.parse_args()
    run = str(Path(args.run).resolve())
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        write_adapter(args.model, work / "adapter")
        common = [run, "merge", f"model.path={args.model.resolve()}", "adapter=adapter", "quantization=none"]
        subprocess.run([*common, "export.dtype=f32", "output=merged"], cwd=work, check=True)
        command = [args.torch_python, "-c", REFERENCE, str(work / "merged"), json.dumps(TEXTS), str(STEPS)]
        rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        good = True
        for dtype in SHARES:
            output = work / f"{dtype}.gguf"
            extra = ["export.format=gguf", f"export.dtype={dtype}", f"output={output.name}"]
            subprocess.run([*common, *extra], cwd=work, check=True, stdout=subprocess.DEVNULL)
            good &= check(output, rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
