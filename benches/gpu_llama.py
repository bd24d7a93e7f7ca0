"""A decoder of the Llama shape in plain torch, written to be the fastest peer that torch
offers without other packages: LoRA beside frozen weights that are dense bf16 or NF4, SDPA,
compiled layers, cross-entropy by chunks of rows. Used by gpu_torch.py.
"""

import json
import os

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from torch.utils.checkpoint import checkpoint

LINEARS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
CHUNK = 512
BLOCK = 64
NESTED = 256
# Quantiles of the normal distribution (Dettmers et al., 2023, appendix E).
CODE = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


class Nf4:
    """A weight in 4 bits; its block maxima in 8, less their mean, by blocks of 256."""

    def __init__(self, weight):
        self.shape = weight.shape
        code = torch.tensor(CODE, device=weight.device)
        blocks = weight.float().view(-1, BLOCK)
        maxima = blocks.abs().amax(1)
        bounds = (code[1:] + code[:-1]) / 2
        levels = torch.bucketize(blocks / maxima.clamp_min(1e-38)[:, None], bounds).to(torch.uint8)
        pairs = levels.view(-1, 2)
        self.packed = pairs[:, 0] * 16 + pairs[:, 1]
        self.offset = maxima.mean()
        rest = maxima - self.offset
        padded = F.pad(rest, (0, -rest.numel() % NESTED)).view(-1, NESTED)
        self.nested = padded.abs().amax(1)
        scaled = padded / self.nested.clamp_min(1e-38)[:, None] * 127
        self.maxima = scaled.round().to(torch.int8).view(-1)[: maxima.numel()].contiguous()
        self.code = code.bfloat16()

    def tensors(self):
        return self.packed, self.maxima, self.nested, self.offset, self.code


def dequantize(packed, maxima, nested, offset, code, rows, columns):
    levels = torch.stack((packed >> 4, packed & 15), 1).view(-1, BLOCK).int()
    scale = F.pad(maxima.float(), (0, -maxima.numel() % NESTED)).view(-1, NESTED)
    scale = (scale * (nested / 127)[:, None]).view(-1)[: maxima.numel()] + offset
    return (code[levels] * scale.bfloat16()[:, None]).view(rows, columns)


compiled_dequantize = torch.compile(dequantize, dynamic=False)


# An opaque operation, so that the compiler cannot keep the dense weight for the backward.
@torch.library.custom_op("peer::nf4_linear", mutates_args=())
def nf4_linear(
    x: torch.Tensor,
    packed: torch.Tensor,
    maxima: torch.Tensor,
    nested: torch.Tensor,
    offset: torch.Tensor,
    code: torch.Tensor,
    rows: int,
    columns: int,
    transposed: bool,
) -> torch.Tensor:
    w = compiled_dequantize(packed, maxima, nested, offset, code, rows, columns)
    return x @ w.t() if transposed else x @ w


@nf4_linear.register_fake
def _(x, packed, maxima, nested, offset, code, rows, columns, transposed):
    return x.new_empty(*x.shape[:-1], rows if transposed else columns)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[1:6])
    ctx.sizes = inputs[6:8]


def _backward(ctx, dy):
    dx = nf4_linear(dy, *ctx.saved_tensors, *ctx.sizes, False)
    return dx, *[None] * 8


nf4_linear.register_autograd(_backward, setup_context=_save)


class LoraLinear(nn.Module):
    """kind: dense, nf4 or torchao."""

    def __init__(self, weight, kind, rank):
        super().__init__()
        self.kind, (self.rows, self.columns) = kind, weight.shape
        if kind == "nf4":
            parts = Nf4(weight).tensors()
            for name, part in zip(("packed", "maxima", "nested", "offset", "code"), parts):
                self.register_buffer(name, part)
        elif kind == "torchao":
            to_nf4, self.linear = torchao()
            self.weight = nn.Parameter(to_nf4(weight, block_size=BLOCK, scaler_block_size=NESTED), False)
        else:
            self.weight = nn.Parameter(weight, False)
        bound = weight.shape[1] ** -0.5
        a = torch.empty(rank, self.columns, device=weight.device).uniform_(-bound, bound)
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(torch.zeros(self.rows, rank, device=weight.device))

    def forward(self, x):
        if self.kind == "nf4":
            y = nf4_linear(
                x, self.packed, self.maxima, self.nested, self.offset, self.code, self.rows, self.columns, True
            )
        elif self.kind == "torchao":
            y = self.linear(x, self.weight)
        else:
            y = F.linear(x, self.weight)
        # Alpha is twice the rank.
        return y + 2.0 * F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype))


def torchao():
    try:
        from torchao.dtypes.nf4tensor import linear_nf4, to_nf4
    except ImportError:
        from torchao.prototype.dtypes.nf4tensor import linear_nf4, to_nf4
    return to_nf4, linear_nf4


class Norm(nn.Module):
    def __init__(self, gain, eps):
        super().__init__()
        self.gain, self.eps = nn.Parameter(gain, False), eps

    def forward(self, x):
        f = x.float()
        return (f * torch.rsqrt(f.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.gain


class Layer(nn.Module):
    def __init__(self, weights, config, kind, rank):
        super().__init__()
        self.heads, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        self.n1 = Norm(weights["input_layernorm.weight"], config["rms_norm_eps"])
        self.n2 = Norm(weights["post_attention_layernorm.weight"], config["rms_norm_eps"])
        for name, part in LINEARS.items():
            setattr(self, name, LoraLinear(weights[f"{part}.{name}.weight"], kind, rank))

    def forward(self, x, cos, sin):
        batch, seq, _ = x.shape
        n = self.n1(x)
        q = self.q_proj(n).view(batch, seq, self.heads, -1).transpose(1, 2)
        k = self.k_proj(n).view(batch, seq, self.kv, -1).transpose(1, 2)
        v = self.v_proj(n).view(batch, seq, self.kv, -1).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(out.transpose(1, 2).reshape(batch, seq, -1))
        n = self.n2(x)
        return x + self.down_proj(F.silu(self.gate_proj(n)) * self.up_proj(n))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos + turned * sin


def chunk_loss(hidden, head, targets, scale):
    """Summed loss of some rows and scale x its gradient to them."""
    logits = (hidden @ head.t()).float()
    lse = logits.logsumexp(-1)
    loss = (lse - logits.gather(1, targets[:, None])[:, 0]).sum()
    d = (logits - lse[:, None]).exp()
    d = d - F.one_hot(targets, logits.shape[1])
    return loss, (d * scale).to(hidden.dtype) @ head


class ChunkedLoss(torch.autograd.Function):
    """Mean cross-entropy after a frozen head; all logits never exist at once."""

    @staticmethod
    def forward(ctx, hidden, head, targets, chunk):
        loss, grads, scale = 0.0, torch.empty_like(hidden), 1.0 / len(targets)
        for at in range(0, len(targets), CHUNK):
            part = slice(at, at + CHUNK)
            one, grads[part] = chunk(hidden[part], head, targets[part], scale)
            loss = loss + one
        ctx.save_for_backward(grads)
        return loss * scale

    @staticmethod
    def backward(ctx, d):
        return ctx.saved_tensors[0] * d, None, None, None


class Decoder(nn.Module):
    def __init__(self, folder, kind, rank, checkpointing, device, compile=True):
        super().__init__()
        with open(os.path.join(folder, "config.json")) as file:
            config = self.config = json.load(file)
        weights = Weights(folder, device)
        self.checkpointing = checkpointing
        self.embedding = nn.Parameter(weights["model.embed_tokens.weight"], False)
        self.head = nn.Parameter(weights["lm_head.weight"], False)
        self.norm = Norm(weights["model.norm.weight"], config["rms_norm_eps"])
        layers = []
        for n in range(config["num_hidden_layers"]):
            layers.append(Layer(weights.below(f"model.layers.{n}."), config, kind, rank))
            if compile:
                layers[-1].compile(dynamic=False)
        self.layers = nn.ModuleList(layers)
        self.chunk = torch.compile(chunk_loss, dynamic=False) if compile else chunk_loss

    def angles(self, seq, device):
        dim = self.config["hidden_size"] // self.config["num_attention_heads"]
        powers = torch.arange(0, dim, 2, device=device).float() / dim
        angle = torch.outer(torch.arange(seq, device=device).float(), self.config["rope_theta"] ** -powers)
        angle = torch.cat((angle, angle), -1)
        return angle.cos().bfloat16(), angle.sin().bfloat16()

    def forward(self, ids):
        cos, sin = self.angles(ids.shape[1], ids.device)
        x = F.embedding(ids, self.embedding)
        if self.checkpointing:
            x.requires_grad_()
        for layer in self.layers:
            x = checkpoint(layer, x, cos, sin, use_reentrant=False) if self.checkpointing else layer(x, cos, sin)
        hidden = self.norm(x)[:, :-1].reshape(-1, x.shape[-1])
        return ChunkedLoss.apply(hidden, self.head, ids[:, 1:].reshape(-1), self.chunk)


class Weights:
    """Tensors of a sharded checkpoint, read one at a time to the device."""

    def __init__(self, folder, device):
        self.folder, self.device, self.open = folder, device, {}
        with open(os.path.join(folder, "model.safetensors.index.json")) as file:
            self.files = json.load(file)["weight_map"]

    def __getitem__(self, name):
        file = self.files[name]
        if file not in self.open:
            self.open[file] = safe_open(os.path.join(self.folder, file), "pt", device=str(self.device))
        return self.open[file].get_tensor(name)

    def below(self, prefix):
        return {n[len(prefix) :]: self[n] for n in self.files if n.startswith(prefix)}
