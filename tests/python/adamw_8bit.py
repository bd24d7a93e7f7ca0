"""Makes tests/fixtures/adamw_8bit.safetensors: bitsandbytes' AdamW8bit on the CPU.

Needs torch, bitsandbytes, safetensors and numpy. The inputs are numbers of a formula
that the test repeats, so only what bitsandbytes makes of them is stored.

    python tests/python/adamw_8bit.py
"""

import pathlib

import bitsandbytes as bnb
import numpy as np
import torch
from safetensors.torch import save_file

STEPS = 6
SHAPES = {"odd": (70, 63), "least": (64, 64), "small": (45, 91)}


def numbers(seed, n):
    """Uniform in [-1, 1): the top 24 bits of a multiplicative hash."""
    i = np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_003)
    h = (i * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(13)
    return ((h >> np.uint64(8)).astype(np.float64) / 2**23 - 1).astype(np.float32)


def gradient(step, which, n):
    """Cubed, so that a block spans decades; some blocks and some elements are zero."""
    g = numbers(100 * step + which, n)
    g = g * g * g
    g[512:768] = 0
    g[::7] = 0
    return g


out = {}
for which, (name, shape) in enumerate(SHAPES.items()):
    n = shape[0] * shape[1]
    p = torch.nn.Parameter(torch.from_numpy(numbers(which + 1, n)).reshape(shape))
    optimizer = bnb.optim.AdamW8bit([p], lr=3e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for step in range(1, STEPS + 1):
        p.grad = torch.from_numpy(gradient(step, which, n)).reshape(shape)
        optimizer.step()
        if step == STEPS or (step, name) == (1, "odd"):
            out[f"{name}.{step}.p"] = p.detach().clone()
            for key in ("state1", "state2", "absmax1", "absmax2"):
                if key in optimizer.state[p]:
                    out[f"{name}.{step}.{key}"] = optimizer.state[p][key].clone()
maps = bnb.functional.create_dynamic_map
out["signed_map"], out["unsigned_map"] = maps(signed=True), maps(signed=False)

path = pathlib.Path(__file__).parent.parent / "fixtures" / "adamw_8bit.safetensors"
save_file(out, path)
for name, tensor in out.items():
    print(name, tuple(tensor.shape), tensor.dtype)
