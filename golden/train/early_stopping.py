"""When transformers' Trainer stops early and which evaluation it takes for the best: golden/train/early_stopping.json.

    python golden/train/early_stopping.py

Each case is a sequence of an evaluated metric; Trainer's own `_determine_best_metric` and `EarlyStoppingCallback` see it one value at
a time, in the order in which Trainer calls them. Compared exactly.
"""

import json
import pathlib
import random
import types

import transformers
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

SEED = 20261123


def run(values, patience, threshold, greater):
    args = types.SimpleNamespace(metric_for_best_model="loss", greater_is_better=greater, save_strategy=SaveStrategy.STEPS)
    callback = EarlyStoppingCallback(patience, threshold)
    trainer = types.SimpleNamespace(args=args, state=TrainerState())
    control, ends_after = TrainerControl(), None
    for step, value in enumerate(values, start=1):
        trainer.state.global_step = step
        metrics = {"eval_loss": value}
        callback.on_evaluate(args, trainer.state, control, metrics=metrics)
        Trainer._determine_best_metric(trainer, metrics, None)
        if control.should_training_stop:
            ends_after = step
            break
    return {
        "values": values,
        "patience": patience,
        "threshold": threshold,
        "greater_is_better": greater,
        "ends_after": ends_after,
        "best": trainer.state.best_global_step,
    }


draw = random.Random(SEED)
cases = [
    run([round(draw.random(), 1) for _ in range(12)], patience, threshold, greater)
    for patience in (1, 2, 4)
    for threshold in (0.0, 0.15)
    for greater in (False, True)
    for _ in range(2)
]
golden = {"versions": {"transformers": transformers.__version__}, "seed": SEED}
lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
lines.append('"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
pathlib.Path(__file__).with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
