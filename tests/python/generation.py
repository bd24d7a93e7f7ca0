"""Makes tests/fixtures/generation.json: transformers' beams on data/models/tiny, and
the distributions that its samplers draw from for one table of logits.

Needs torch, transformers and tokenizers.

    python tests/python/generation.py
"""

import itertools
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

root = pathlib.Path(__file__).parent.parent.parent
tiny = root / "data/models/tiny"
tokenizer = AutoTokenizer.from_pretrained(tiny)
models = [
    AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype).eval()
    for dtype in (torch.float32, torch.float64)
]
PROMPTS = [
    "Question: What is the capital of France?\nAnswer:",
    "Question: Which animal",
    "The gem of Zeno is",
    "The",
    "A. red\nB. blue\nC. green\n",
]
ENDS = [tokenizer(text, add_special_tokens=False).input_ids for text in (".", "\n.", " the.", " of")]


def beams(model, ids, case):
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=case["max_new_tokens"],
        num_beams=case["num_beams"],
        length_penalty=case["length_penalty"],
        early_stopping=case["early_stopping"],
        repetition_penalty=case["repetition_penalty"],
        eos_token_id=case["eos_ids"],
        pad_token_id=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    out = model.generate(torch.tensor([ids]), generation_config=config)
    new = out.sequences[0][len(ids) :].tolist()
    while new and new[-1] == 2:
        new.pop()
    if new and new[-1] in case["eos_ids"]:
        new.pop()
    return new, float(out.sequences_scores[0])


cases = []
for prompt, num_beams, length_penalty, early_stopping in itertools.product(
    PROMPTS, (2, 4), (1.0, 0.0, 2.0, -1.0), (False, True, "never")
):
    n = len(cases)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    case = {
        "prompt": ids,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
        "repetition_penalty": (1.0, 1.3)[n % 5 == 0],
        "max_new_tokens": (7, 16, 11)[n % 3],
        # Frequent tokens in place of EOS, so that beams end at different lengths.
        "eos_ids": ENDS[n % 4],
    }
    (tokens, score), (again, _) = (beams(model, ids, case) for model in models)
    # Left out where rounding decides between two beams.
    if tokens == again:
        cases.append(case | {"tokens": tokens, "score": score})

generator = torch.Generator().manual_seed(3)
logits = (torch.randn(40, generator=generator) * 2.5 * 16).round() / 16
seen = [3, 3, 17, 30]
draws = []
for temperature, top_k, top_p, min_p, penalty in [
    (1.0, None, 1.0, None, 1.0),
    (0.7, None, 1.0, None, 1.0),
    (1.6, 7, 1.0, None, 1.0),
    (1.0, None, 0.8, None, 1.0),
    (1.0, None, 1.0, 0.1, 1.0),
    (0.8, 20, 0.93, 0.02, 1.0),
    (1.3, 12, 0.9, 0.05, 1.4),
]:
    processors = LogitsProcessorList()
    if penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1.0:
        processors.append(TemperatureLogitsWarper(temperature))
    if top_k is not None:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        processors.append(TopPLogitsWarper(top_p))
    if min_p is not None:
        processors.append(MinPLogitsWarper(min_p))
    scores = processors(torch.tensor([seen]), logits.clone()[None])
    draws.append(
        {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": penalty,
            "probabilities": scores.softmax(-1)[0].tolist(),
        }
    )

out = {"beams": cases, "logits": logits.tolist(), "seen": seen, "draws": draws}
text = json.dumps(out).replace('{"prompt"', '\n{"prompt"').replace('{"temperature"', '\n{"temperature"')
(root / "tests/fixtures/generation.json").write_text(text + "\n")
lengths = [len(c["tokens"]) for c in cases]
print(len(cases), "beam cases, lengths", sorted(set(lengths)), "and", len(draws), "settings")
