"""Rewards that a policy implies, as RewardBench's `rewardbench/dpo.py` defines them, computed with transformers in float64:
log_ratio (with a reference: sum of log pi - sum of log pi_ref), sum, avg and norm (without one), over the completion's tokens and EOS.

usage: python implicit.py FOLDER > implicit.json   with FOLDER = shared/reference/trl_parity (model: reference, sigmoid_adamw: policy)
"""
import json, shutil, sys, tempfile
from pathlib import Path

import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = Path(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(folder / "model")
reference = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64, attn_implementation="eager").eval()
with tempfile.TemporaryDirectory() as trained:
    shutil.copy(folder / "model" / "config.json", trained)
    shutil.copy(folder / "sigmoid_adamw" / "final.safetensors", Path(trained) / "model.safetensors")
    policy = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float64, attn_implementation="eager").eval()


@torch.no_grad()
def logps(model, prompt, completion):
    start = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + completion + tokenizer.eos_token)["input_ids"]
    assert ids[: len(start)] == start
    logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [logits[i - 1, ids[i]].item() for i in range(len(start), len(ids))]


rows = []
for line in (folder / "pairs.jsonl").read_text().splitlines()[:6]:
    pair = json.loads(line)
    for side in ("chosen", "rejected"):
        p, r = (logps(m, pair["prompt"], pair[side]) for m in (policy, reference))
        rows.append({
            "prompt": pair["prompt"], "completion": pair[side], "tokens": len(p),
            "log_ratio": sum(p) - sum(r), "sum": sum(p), "avg": sum(p) / len(p), "norm": -sum(x * x for x in p) ** 0.5,
        })
print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "rows": rows}, indent=1))
