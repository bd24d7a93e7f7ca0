"""Makes tests/fixtures/qlora.safetensors: twenty steps of LoRA with PEFT over an NF4 base.

Needs torch, transformers, peft, safetensors and numpy. The base is the tiny Llama that bitsandbytes
quantised, dequantised here by the definition: element i of the flat weight is its level times maximum
i / 64. down_proj has rows of 160, no whole blocks, where bitsandbytes' CPU kernel (0.50.2, with
AVX-512) takes the maxima of other blocks; the reference folder's own log of this run
(runs/qlora/log.jsonl) was made with that kernel.

    python tests/python/qlora.py REFERENCE
"""

import json
import pathlib
import sys

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup


def dequantised(held, name):
    """A weight of bitsandbytes' NF4, an element at a time."""
    state = json.loads(bytes(held[f"{name}.quant_state.bitsandbytes__nf4"].numpy()))
    codes = held[f"{name}.absmax"].numpy().astype(np.int64)
    nested = held[f"{name}.nested_absmax"].numpy()
    blocks = np.arange(len(codes)) // state["nested_blocksize"]
    maxima = held[f"{name}.nested_quant_map"].numpy()[codes] * nested[blocks]
    maxima = maxima + np.float32(state["nested_offset"])
    packed = held[name].numpy().reshape(-1)
    levels = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
    element = np.arange(len(levels))
    values = held[f"{name}.quant_map"].numpy()[levels] * maxima[element // state["blocksize"]]
    return torch.from_numpy(values.astype(np.float32)).reshape(state["shape"])


reference = pathlib.Path(sys.argv[1])
run = reference / "runs/qlora"
held = load_file(run / "base_4bit/model.safetensors")
weights = {
    name: dequantised(held, name) if f"{name}.absmax" in held else value.float()
    for name, value in held.items()
    if name.endswith(".weight")
}
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(
    reference / "tiny/llama_untied", dtype=torch.float32, attn_implementation="eager"
)
model.load_state_dict(weights)
model = PeftModel.from_pretrained(model, run / "init_adapter", is_trainable=True)
model.train()
batches = load_file(run / "batches.safetensors")
ids, mask, labels = (batches[key] for key in ("input_ids", "attention_mask", "labels"))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
schedule = get_cosine_schedule_with_warmup(optimizer, 3, 20)
losses, norms = [], []
for step in range(20):
    total = 0.0
    for i in (2 * step, 2 * step + 1):
        loss = model(input_ids=ids[i], attention_mask=mask[i], labels=labels[i], use_cache=False).loss
        (loss / 2).backward()
        total += loss.item() / 2
    norms.append(torch.nn.utils.clip_grad_norm_(trained, 1.0).item())
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(total)
module = model.base_model.model.model.layers[1].mlp.down_proj
change = module.lora_B["default"].weight @ module.lora_A["default"].weight
out = {
    "losses": torch.tensor(losses, dtype=torch.float32),
    "grad_norms": torch.tensor(norms, dtype=torch.float32),
    "change": change.detach().contiguous(),
}
target = pathlib.Path(__file__).parents[1] / "fixtures/qlora.safetensors"
save_file(out, target)
print(target, target.stat().st_size, "bytes; losses", losses[:3], "..", losses[-1])
