"""A tiny Llama under dropout of what attention and MLP add to the residual stream: golden/train/resid_dropout.safetensors.

    python golden/train/resid_dropout.py

transformers' Llama in binary64 (the weights of golden/lora/base), its o_proj and down_proj outputs multiplied by masks that are made here
anew, in Python's integers, from their definition: the row at position r has the state r; attention and MLP of layer l are the modules 2l
and 2l + 1; `derived(state, module)` starts SplitMix64, whose i-th output drops feature i where its upper 32 bits are below p * 2^32. What
stays is multiplied by 1 / (1 - p).

Holds `ids`; `weights`; `logps`, the log-probability of each token of `ids` after the first; `grad.NAME`, the gradient of their sum weighed
by `weights`. Tests allow 2e-5 on scores and on gradients relative to a tensor's largest (binary32 against binary64).
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
SHARE, WORD, GAMMA = 0.3, (1 << 64) - 1, 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def derived(state, value):
    return mix((mix((state + GAMMA) & WORD) + value) & WORD)


def mask(rows, module, features):
    table = torch.zeros(rows, features, dtype=torch.float64)
    for row in range(rows):
        state = derived(row, module)
        for i in range(features):
            state = (state + GAMMA) & WORD
            table[row, i] = 0.0 if mix(state) >> 32 < int(SHARE * 2**32) else 1 / (1 - SHARE)
    return table


torch.manual_seed(20261124)
model = LlamaForCausalLM.from_pretrained(HERE.parent / "lora/base", dtype=torch.float64)
ids = torch.randint(0, model.config.vocab_size, (1, 14))
for number, layer in enumerate(model.model.layers):
    for module, part in [(2 * number, layer.self_attn.o_proj), (2 * number + 1, layer.mlp.down_proj)]:
        table = mask(ids.shape[1], module, model.config.hidden_size)
        part.register_forward_hook(lambda _, __, output, table=table: output * table)
logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
weights = torch.randn(len(logps), dtype=torch.float64)
(logps * weights).sum().backward()
tensors = {"ids": ids[0].float(), "weights": weights.float(), "logps": logps.detach().float()}
# A tied head is one tensor with the embeddings.
tensors |= {f"grad.{name}": p.grad.float() for name, p in model.named_parameters()}
save_file(tensors, HERE / "resid_dropout.safetensors")
