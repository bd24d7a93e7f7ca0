#!/usr/bin/env python3
"""Makes ../fixtures/story_llama_greedy.json: what transformers says after "Once upon a time".

usage: python tests/python/story_llama_greedy.py MODEL_DIR     the story-llama checkpoint

Greedy in f32 on one CPU thread, to the end-of-sequence token, which is the last of new_ids.
smallest_margin is the least distance between the best and the second-best logit on the way:
numerical noise below it cannot change a token. Checked-in file: transformers 5.23.0, torch 2.15.0.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "Once upon a time"

if len(sys.argv) != 2:
    raise SystemExit(__doc__)
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
ids = tokenizer(PROMPT, return_tensors="pt").input_ids
out = model.generate(ids, do_sample=False, max_new_tokens=256)[0]
with torch.no_grad():
    logits = model(out[None]).logits[0, ids.shape[1] - 1 : -1]
best = logits.topk(2).values
new_ids = out[ids.shape[1] :].tolist()
assert logits.argmax(-1).tolist() == new_ids and new_ids[-1] == model.config.eos_token_id
fixture = {
    "made_by": f"tests/python/story_llama_greedy.py, transformers {transformers.__version__}, torch {torch.__version__}",
    "prompt": PROMPT,
    "prompt_ids": ids[0].tolist(),
    "new_ids": new_ids,
    "text": tokenizer.decode(new_ids, skip_special_tokens=True).strip(),
    "smallest_margin": round((best[:, 0] - best[:, 1]).min().item(), 5),
}
path = pathlib.Path(__file__).parent.parent / "fixtures/story_llama_greedy.json"
lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fixture.items())
path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(f"{path.name}: {len(new_ids)} new tokens, smallest margin {fixture['smallest_margin']}")
