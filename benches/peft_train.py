#!/usr/bin/env python3
"""The peer of benches/train_step.rs: PEFT on the same weights and batch shape.

usage: python benches/peft_train.py save DIR            writes the 134M Llama shape, random f32 weights
       python benches/peft_train.py train DIR [lora|qlora] [--threads N] [--steps 4] [--checkpointing] [--bf16]

Needs torch, transformers, peft, bitsandbytes. One measurement a process; prints one JSON line
with the same keys as the other side.
"""

import argparse
import json
import resource
import time

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["save", "train"])
parser.add_argument("dir")
parser.add_argument("mode", nargs="?", default="lora", choices=["lora", "qlora"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--seq", type=int, default=256)
parser.add_argument("--checkpointing", action="store_true")
parser.add_argument("--bf16", action="store_true")
args = parser.parse_args()

import torch  # noqa: E402  (after the arguments, so that --help is quick)

torch.set_num_threads(args.threads)
torch.manual_seed(0)
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig  # noqa: E402

if args.what == "save":
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(args.dir)
    raise SystemExit

from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # noqa: E402

dtype = torch.bfloat16 if args.bf16 else torch.float32
quantised = {}
if args.mode == "qlora":
    quantised = dict(
        device_map="cpu",
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )
began = time.time()
model = AutoModelForCausalLM.from_pretrained(
    args.dir, dtype=dtype, attn_implementation="sdpa", **quantised
)
load_s = time.time() - began
if args.mode == "qlora":
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=args.checkpointing)
elif args.checkpointing:
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(
    model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=linears)
)
model.train()
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0.0)
ids = torch.randint(3, model.config.vocab_size, (args.batch, args.seq))

wall, cpu, losses = [], [], []
for _ in range(args.steps + 1):
    w, c = time.time(), time.process_time()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    wall.append(time.time() - w)
    cpu.append(time.process_time() - c)
    losses.append(loss.item())


def median(values):
    """Of all but the first, which warms up."""
    return sorted(values[1:])[len(values[1:]) // 2]


tokens = ids.numel()
print(
    json.dumps(
        {
            "side": "peft",
            "mode": args.mode,
            "precision": "Bf16" if args.bf16 else "F32",
            "checkpointing": args.checkpointing,
            "threads": args.threads,
            "load_s": load_s,
            "step_s": median(wall),
            "tokens_per_s": tokens / median(wall),
            "tokens_per_cpu_s": tokens / median(cpu),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "loss": losses,
        }
    )
)
