"""Two runs of TRL's DPOTrainer with discopop, in binary32 and in binary64: golden/train/discopop/.

    python golden/train/discopop.py FOLDER

FOLDER holds a tiny model and pairs (`model/`, `pairs.jsonl`), the same that the other recorded runs of src/train/tests/parity.rs
start from, and the recorded case `sigmoid_adamw`, whose settings these runs have but for the loss.

discopop's weight σ(βΔ/τ) has τ = 0.05, so that near βΔ = 0 its slope changes by a multiple of 1/τ = 20 a nat: rounding errors of
log-probabilities near -150 (half a unit in the last place of binary32 is 8e-6 there) reach gradients, and Adam carries them on. TRL's own
two runs differ by more than the tolerance of the other cases; the test holds our run to the one in binary64, within that tolerance or
within what TRL's run in binary32 differs from it.
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

root = pathlib.Path(sys.argv[1])
recorded = json.loads((root / "sigmoid_adamw/config.json").read_text())
pairs = [json.loads(line) for line in (root / "pairs.jsonl").read_text().splitlines()]
args = recorded["args"] | {"loss_type": ["discopop"]}


def train(dtype):
    torch.set_num_threads(1)
    load = lambda: AutoModelForCausalLM.from_pretrained(root / "model", dtype=dtype)
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


folder = pathlib.Path(__file__).with_suffix("")
folder.mkdir(exist_ok=True)
versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
config = {"case": recorded["case"] | {"loss_type": ["discopop"], "versions": versions}, "args": args}
(folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
for name, dtype in [("steps.jsonl", torch.float32), ("steps_f64.jsonl", torch.float64)]:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in train(dtype)))
