"""Makes tests/fixtures/pissa.safetensors: how PEFT begins with PiSSA and LoftQ, and a PiSSA run.

Needs torch, transformers, peft, bitsandbytes, safetensors and numpy. The weights are numbers of a
formula that the test repeats. The run trains the tiny Llama of the reference folder on the
batches of its plain LoRA run.

    python tests/python/pissa.py REFERENCE
"""

import json
import pathlib
import sys
import tempfile

import bitsandbytes.functional as bnb
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.loftq_utils import _low_rank_decomposition
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup
from transformers.pytorch_utils import Conv1D

SHAPES = {"wide": (24, 40), "tall": (70, 33)}
RANK, ALPHA = 4, 10


def numbers(seed, n):
    """Uniform in [-1, 1): the top 24 bits of a multiplicative hash."""
    i = np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_003)
    h = (i * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(13)
    return ((h >> np.uint64(8)).astype(np.float64) / 2**23 - 1).astype(np.float32)


def weight(seed, shape):
    return torch.from_numpy(numbers(seed, shape[0] * shape[1]).reshape(shape))


def started(layer, **options):
    """What PEFT makes of one layer: B A and the weight that stays, as [out, in]."""
    module = torch.nn.Sequential()
    module.add_module("layer", layer)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], **options)
    made = get_peft_model(module, config).base_model.model.layer
    product = made.lora_B["default"].weight @ made.lora_A["default"].weight
    return product.detach().contiguous(), made.base_layer.weight.detach().contiguous()


def loftq(dense, rounds):
    """The loop of PEFT's loftq_init, which itself asks for a GPU."""
    rest = dense.clone()
    for _ in range(rounds):
        packed, state = bnb.quantize_4bit(rest, blocksize=64, quant_type="nf4", compress_statistics=False)
        base = bnb.dequantize_4bit(packed, state)
        found = _low_rank_decomposition(dense - base, reduced_rank=RANK)
        rest = dense - found["L"] @ found["R"]
    return found["L"] @ found["R"], base


def run(reference):
    """Losses of twenty steps with PiSSA, and the adapter as plain LoRA."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        reference / "tiny/llama_untied", dtype=torch.float32, attn_implementation="eager"
    )
    config = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules="all-linear",
        init_lora_weights="pissa",
    )  # fmt: skip
    model = get_peft_model(model, config)
    model.train()
    with tempfile.TemporaryDirectory() as folder:
        began = pathlib.Path(folder, "began")
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(began)
        batches = load_file(reference / "runs/lora/batches.safetensors")
        ids, mask, labels = (batches[k] for k in ("input_ids", "attention_mask", "labels"))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, 3, 20)
        losses = []
        for step in range(20):
            total = 0.0
            for i in (2 * step, 2 * step + 1):
                out = model(input_ids=ids[i], attention_mask=mask[i], labels=labels[i], use_cache=False)
                (out.loss / 2).backward()
                total += out.loss.item() / 2
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total)
        plain = pathlib.Path(folder, "plain")
        model.save_pretrained(plain, path_initial_model_for_weight_conversion=str(began))
        saved = json.loads((plain / "adapter_config.json").read_text())
        weights = load_file(plain / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    change = weights[key.format("B")] @ weights[key.format("A")]
    print("r, alpha, init:", saved["r"], saved["lora_alpha"], saved["init_lora_weights"])
    return torch.tensor(losses, dtype=torch.float32), change, torch.tensor([saved["r"], saved["lora_alpha"]])


out = {}
for seed, (name, shape) in enumerate(SHAPES.items()):
    dense = weight(seed, shape)
    linear = torch.nn.Linear(shape[1], shape[0], bias=False)
    for case, options in {"plain": {}, "rslora": {"use_rslora": True}}.items():
        linear.weight.data = dense.clone()
        out[f"{name}.{case}.product"], out[f"{name}.{case}.rest"] = started(
            linear, init_lora_weights="pissa", **options
        )
    turned = Conv1D(shape[0], shape[1])
    turned.weight.data = dense.t().contiguous()
    product, rest = started(turned, init_lora_weights="pissa", fan_in_fan_out=True)
    out[f"{name}.turned.product"], out[f"{name}.turned.rest"] = product, rest.t().contiguous()
    for rounds in (1, 3):
        case = f"{name}.loftq{rounds}"
        out[f"{case}.product"], out[f"{case}.rest"] = loftq(dense, rounds)
out["run.losses"], out["run.change"], out["run.config"] = run(pathlib.Path(sys.argv[1]))
target = pathlib.Path(__file__).parents[1] / "fixtures/pissa.safetensors"
save_file(out, target)
print(target, target.stat().st_size, "bytes; losses", out["run.losses"][:3].tolist(), "..", out["run.losses"][-1].item())
