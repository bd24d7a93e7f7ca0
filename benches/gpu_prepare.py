"""What gpu_torch.py makes and measures before the peers run: a random checkpoint that both
sides load, and what the card itself reaches.
"""

import json
import os
import time

SHAPES = {
    # vocabulary, hidden, intermediate, layers, heads, key/value heads
    "8b": (128256, 4096, 14336, 32, 32, 8),
    "tiny": (1000, 256, 704, 4, 8, 2),
}


def write(args):
    """The random checkpoint that both sides load."""
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from safetensors.torch import save_file

    began = time.time()
    vocabulary, hidden, wide, layers, heads, kv = SHAPES[args.shape]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    os.makedirs(args.dir, exist_ok=True)
    with open(os.path.join(args.dir, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    torch.manual_seed(1)

    def random(*shape):
        return torch.empty(*shape, device=args.device, dtype=torch.bfloat16).normal_(0, 0.02).cpu()

    def ones():
        return torch.ones(hidden, dtype=torch.bfloat16)

    narrow = hidden // heads * kv
    shards = [
        {"model.embed_tokens.weight": lambda: random(vocabulary, hidden)},
        {"lm_head.weight": lambda: random(vocabulary, hidden), "model.norm.weight": ones},
    ]
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    for n in range(layers):
        if n % 4 == 0:
            shards.append({})
        at = f"model.layers.{n}."
        for name, shape in shapes.items():
            shards[-1][f"{at}{name}.weight"] = lambda shape=shape: random(*shape)
        shards[-1][at + "input_layernorm.weight"] = ones
        shards[-1][at + "post_attention_layernorm.weight"] = ones
    weight_map, sizes = {}, []
    with ThreadPoolExecutor(4) as pool:
        pending = []
        for i, shard in enumerate(shards):
            name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
            tensors = {key: make() for key, make in shard.items()}
            weight_map.update(dict.fromkeys(tensors, name))
            sizes += [2 * t.numel() for t in tensors.values()]
            path = os.path.join(args.dir, name)
            pending.append(pool.submit(save_file, tensors, path, {"format": "pt"}))
        for done in pending:
            done.result()
    with open(os.path.join(args.dir, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}, file)
    print(f"{args.dir}: {sum(sizes) / 1e9:.2f} GB in {len(shards)} files, {time.time() - began:.1f} s")


def ceilings(args):
    """What this card reaches: a copy (bytes read and written), a bf16 product on random numbers."""
    import torch

    def seconds(call):
        for _ in range(3):
            call()
        times = []
        for _ in range(10):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return sorted(times)[len(times) // 2]

    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source))
    del source, target
    a = torch.randn(8192, 8192, device="cuda").bfloat16()
    b = torch.randn(8192, 8192, device="cuda").bfloat16()
    product = seconds(lambda: a @ b)
    report = {
        "side": "ceilings",
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "bytes_per_s": 2 * 4 * 2**30 / copy,
        "flop_per_s": 2 * 8192**3 / product,
    }
    print(json.dumps(report))
