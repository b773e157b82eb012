"""A run of TRL's DPOTrainer whose reference follows the policy (TR-DPO): golden/train/sync_ref_model/.

    python golden/train/sync_ref_model.py FOLDER

FOLDER holds a tiny model and pairs (`model/`, `pairs.jsonl`), the same that the other recorded runs of src/train/tests/parity.rs
start from; that test reads what is written here as one more case. Before, the script repeats the recorded case `sigmoid_sgd` without
synchronisation, and stops if its own numbers are not those.
"""

import json
import pathlib
import sys
import tempfile

import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

SYNC = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.7, "ref_model_sync_steps": 3, "precompute_ref_log_probs": False}
root = pathlib.Path(sys.argv[1])
recorded = json.loads((root / "sigmoid_sgd/config.json").read_text())
pairs = [json.loads(line) for line in (root / "pairs.jsonl").read_text().splitlines()]


def train(args):
    torch.set_num_threads(1)
    load = lambda: AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    with tempfile.TemporaryDirectory() as output:
        trainer = trl.DPOTrainer(
            load(),
            ref_model=load(),
            args=trl.DPOConfig(output_dir=output, **args),
            train_dataset=Dataset.from_list(pairs),
            processing_class=AutoTokenizer.from_pretrained(root / "model"),
        )
        trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


control = [json.loads(line) for line in (root / "sigmoid_sgd/steps.jsonl").read_text().splitlines()]
for found, expected in zip(train(recorded["args"]), control):
    for name, value in found.items():
        assert abs(value - expected[name]) <= 1e-3 * max(abs(value), 1e-2), (name, value, expected[name])
folder = pathlib.Path(__file__).with_suffix("")
folder.mkdir(exist_ok=True)
versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
args = recorded["args"] | SYNC
config = {"case": recorded["case"] | {"versions": versions}, "args": args}
(folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
(folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train(args)))
