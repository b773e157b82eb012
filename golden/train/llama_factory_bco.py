"""LLaMA-Factory's `pref_bco_weight` from its formula: golden/train/llama_factory_bco.json.

    python golden/train/llama_factory_bco.py

Written from the definition in LLaMA-Factory's train/dpo/trainer.py (commit 0005269) and TRL's RunningMoments, in binary64 with autograd;
no code of either runs here. Per micro-batch: d is the running mean of mean rewards, updated before it is used and detached;
loss = mean((dpo + g * bco) / (1 + g)). A step is the mean over its micro-batches. Compared to 1e-12.
"""

import json
import pathlib

import torch

SEED, BETA, GAMMA, MICRO, STEPS, PAIRS = 20261124, 0.1, 0.4, 3, 3, 8
torch.manual_seed(SEED)
running_mean, running_count = 0.0, 0
steps = []
for _ in range(STEPS):
    # (pairs, 2): chosen and rejected, nats.
    reference = -20 - 30 * torch.rand(PAIRS, 2, dtype=torch.float64)
    policy = (reference + 4 * torch.randn(PAIRS, 2, dtype=torch.float64) + 1).requires_grad_()
    parts = []
    for ratios in (policy - reference).split(MICRO):
        rewards = BETA * ratios
        running_count += 1
        running_mean += (rewards.mean().item() - running_mean) / running_count
        dpo = -torch.nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1])
        bco = -torch.nn.functional.logsigmoid(rewards[:, 0] - running_mean)
        bco = bco - torch.nn.functional.logsigmoid(-(rewards[:, 1] - running_mean))
        parts.append(((dpo + GAMMA * bco) / (1 + GAMMA)).mean())
    loss = torch.stack(parts).mean()
    loss.backward()
    steps.append({
        "policy": policy.tolist(),
        "reference": reference.tolist(),
        "loss": loss.item(),
        "gradient": policy.grad.tolist(),
        "shift": running_mean,
    })
golden = {"versions": {"torch": torch.__version__}, "seed": SEED, "beta": BETA, "gamma": GAMMA, "micro_batch": MICRO, "steps": steps}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
