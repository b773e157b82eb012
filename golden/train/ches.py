"""Records golden/train/ches.json: CHES of random pairs under the small models of golden/models, by transformers in PyTorch.

Run from the repository root: python golden/train/ches.py
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM

MODELS = ["llama-plain-bf16", "mistral-window", "qwen3", "gpt2", "gpt-neox", "gemma2"]


@torch.no_grad()
def state_sums(model, prompt, completion):
    """Sum of the last layer's states (after the final norm) from which the completion's tokens are predicted, in binary64."""
    ids = torch.tensor([prompt + completion])
    states = model(ids, output_hidden_states=True).hidden_states[-1][0].double()
    return states[len(prompt) - 1 : len(prompt) + len(completion) - 1].sum(0)


def pair(model, draw, vocabulary):
    lengths = [int(torch.randint(2, 9, (1,), generator=draw)) for _ in range(3)]
    prompt, chosen, rejected = [torch.randint(0, vocabulary, (n,), generator=draw).tolist() for n in lengths]
    plus, minus = state_sums(model, prompt, chosen), state_sums(model, prompt, rejected)
    n, m = len(chosen), len(rejected)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "ches": float(plus @ minus - plus @ plus),
        "ches_normalised": float(plus @ minus / (n * m) - plus @ plus / n**2),
        "ches_scale": float(plus.norm() * (plus.norm() + minus.norm())),
        "ches_normalised_scale": float(plus.norm() / n * (plus.norm() / n + minus.norm() / m)),
    }


cases = []
for name in MODELS:
    model = AutoModelForCausalLM.from_pretrained(f"golden/models/{name}", dtype=torch.float32, attn_implementation="eager")
    model.eval()
    draw = torch.Generator().manual_seed(11)
    cases.append({"model": name, "pairs": [pair(model, draw, model.config.vocab_size) for _ in range(6)]})

versions = {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__}
with open("golden/train/ches.json", "w") as file:
    json.dump({"versions": versions, "cases": cases}, file)
    file.write("\n")
