"""Forward values and gradients of the layers that models are made of, by PyTorch in binary64: golden/numerics/gradients.json.

    python golden/numerics/gradients.py

Inputs are multiples of 2^-8, exact in binary32 and short in decimal; `upstream` is what the scalar that is differentiated weighs
the output with. Outputs and gradients have ten significant digits. The test in src/numerics/golden_tests.rs computes the same
in binary32 and allows 1e-6 for outputs and 1e-5 for gradients, relative to the largest number of each tensor or 1: a few dozen
roundings of 6e-8.
"""

import json
import pathlib

import torch
import transformers
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

SEED = 20240613
EPS = 1e-5
THETA = 10000.0
generator = torch.Generator().manual_seed(SEED)


def draw(*shape, scale=1.0):
    """Normal numbers, rounded to multiples of 2^-8."""
    values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
    return ((values * 256).round() / 256).requires_grad_()


def digits(tensor):
    return {"shape": list(tensor.shape), "values": [float(f"{x:.10g}") for x in tensor.detach().flatten().tolist()]}


def case(function, inputs, **settings):
    output = function(**inputs)
    upstream = draw(*output.shape).detach()
    (output * upstream).sum().backward()
    return {
        "settings": settings,
        "inputs": {name: digits(x) for name, x in inputs.items()},
        "output": digits(output),
        "upstream": digits(upstream),
        "gradients": {name: digits(x.grad) for name, x in inputs.items()},
    }


def swiglu_mlp(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def gelu_mlp(activation):
    return lambda x, up, up_bias, down, down_bias: F.linear(activation(F.linear(x, up, up_bias)), down, down_bias)


def gelu_mlp_inputs():
    return {"x": draw(3, 10), "up": draw(20, 10, scale=0.5), "up_bias": draw(20), "down": draw(10, 20, scale=0.3), "down_bias": draw(10)}


def attention(heads, kv_heads, head_dim):
    def run(q, k, v):
        rows = q.shape[0]
        split = lambda x, n: x.view(1, rows, n, head_dim).transpose(1, 2)
        frequencies = THETA ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.arange(rows, dtype=torch.float64)[:, None] * frequencies
        cos, sin = [f(torch.cat([angles, angles], -1))[None] for f in (torch.cos, torch.sin)]
        q, k = apply_rotary_pos_emb(split(q, heads), split(k, kv_heads), cos, sin)
        out = F.scaled_dot_product_attention(q, k, split(v, kv_heads), is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).reshape(rows, heads * head_dim)

    return run


tokens = torch.tensor([3, 0, 3, 6])
targets = torch.tensor([4, 0, 22])
logits = lambda logits: logits.log_softmax(-1)[torch.arange(3), targets]
x = torch.linspace(-9, 9, 999, dtype=torch.float64)
assert torch.allclose(ACT2FN["gelu_new"](x), F.gelu(x, approximate="tanh"), rtol=0, atol=1e-12)
assert torch.allclose(ACT2FN["gelu"](x), F.gelu(x), rtol=0, atol=1e-12)

cases = {
    "linear": case(F.linear, {"input": draw(4, 9), "weight": draw(7, 9), "bias": draw(7)}),
    "embedding": case(lambda weight: F.embedding(tokens, weight), {"weight": draw(7, 5)}, tokens=tokens.tolist()),
    "rms_norm": case(lambda x, weight: F.rms_norm(x, (19,), weight, EPS), {"x": draw(3, 19), "weight": draw(19)}, eps=EPS),
    "layer_norm": case(
        lambda x, weight, bias: F.layer_norm(x + 2, (19,), weight, bias, EPS),
        {"x": draw(3, 19), "weight": draw(19), "bias": draw(19)},
        eps=EPS,
        shift=2,
    ),
    "swiglu_mlp": case(
        swiglu_mlp, {"x": draw(3, 10), "gate": draw(20, 10), "up": draw(20, 10, scale=0.5), "down": draw(10, 20, scale=0.3)}
    ),
    "gelu_mlp": case(gelu_mlp(ACT2FN["gelu"]), gelu_mlp_inputs()),
    "gelu_new_mlp": case(gelu_mlp(ACT2FN["gelu_new"]), gelu_mlp_inputs()),
    "attention": case(
        attention(4, 2, 6), {"q": draw(5, 24), "k": draw(5, 12), "v": draw(5, 12)}, heads=4, kv_heads=2, head_dim=6, theta=THETA
    ),
    "token_logp": case(logits, {"logits": draw(3, 23, scale=3.0)}, targets=targets.tolist()),
}

out = pathlib.Path(__file__).with_name("gradients.json")
body = {"torch": torch.__version__, "transformers": transformers.__version__, "seed": SEED, "cases": cases}
out.write_text(json.dumps(body, separators=(",", ":")).replace('},"', '},\n"') + "\n")
