"""Steps of torch's optimizers and learning rates of transformers' schedules: golden/train/optimizers.json.

    python golden/train/optimizers.py

Weights and gradients are multiples of 2^-8, exact in binary32; the updates are done in binary64, gradients clipped to a norm of
1 before each. The tests in src/train/optimizer.rs do them in binary32 and allow 1e-6 relative to the largest weight: a few dozen
roundings of 6e-8. Schedules are compared to 1e-15: the same formulas in binary64, in another order at most.
"""

import json
import pathlib

import torch
import transformers

SEED = 20261123
STEPS = 12
LR = 0.05
generator = torch.Generator().manual_seed(SEED)


def draw():
    return (torch.randn(4, generator=generator, dtype=torch.float64) * 256).round() / 256


START, GRADIENTS = draw(), [draw() for _ in range(STEPS)]


def steps(make):
    weight = START.clone().requires_grad_()
    optimizer = make([weight])
    weights = []
    for gradient in GRADIENTS:
        weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        weights.append(weight.tolist())
    return weights


def rates(name, warmup, total):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    found = []
    for _ in range(total):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=LR, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, weight_decay=0.1),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=LR, weight_decay=0.1, momentum=0.9),
}
SCHEDULES = [
    (name, warmup, 9)
    for name in ("constant", "constant_with_warmup", "linear", "cosine", "inverse_sqrt")
    for warmup in (0, 3)
]
golden = {
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    "seed": SEED,
    "learning_rate": LR,
    "start": START.tolist(),
    "gradients": [g.tolist() for g in GRADIENTS],
    "weights": {name: steps(make) for name, make in OPTIMIZERS.items()},
    "rates": [{"schedule": n, "warmup": w, "rates": rates(n, w, t)} for n, w, t in SCHEDULES],
}
path = pathlib.Path(__file__).with_suffix(".json")
lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
