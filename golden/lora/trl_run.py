"""TRL's DPOTrainer with a peft_config, on the model and pairs of trl_parity: golden/lora/trl_dpo_lora.

    python golden/lora/trl_run.py PATH/TO/trl_parity

TRL 1.16, PEFT 0.21, f32, CPU, sequential order, constant learning rate, no dropout. The case's folder has the form of the recorded
cases there (src/train/tests/parity.rs), and `adapter/`, the adapter that training starts from; `final.safetensors` is the adapter
after the last step.
"""

import json
import pathlib
import shutil
import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

ROOT = pathlib.Path(sys.argv[1])
OUT = pathlib.Path(__file__).parent / "trl_dpo_lora"
STEPS = 12
torch.manual_seed(7)

tokenizer = AutoTokenizer.from_pretrained(ROOT / "model")
model = AutoModelForCausalLM.from_pretrained(ROOT / "model", dtype=torch.float32)
rows = [json.loads(line) for line in open(ROOT / "pairs.jsonl")]
dataset = Dataset.from_list([{k: r[k] for k in ("prompt", "chosen", "rejected")} for r in rows])
arguments = dict(
    json.load(open(ROOT / "sigmoid_adamw" / "config.json"))["args"],
    max_steps=STEPS, learning_rate=5e-3, gradient_accumulation_steps=2, per_device_train_batch_size=2, weight_decay=0.01,
)
lora = dict(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM")
trainer = DPOTrainer(
    model=model, args=DPOConfig(output_dir="unused", **arguments), train_dataset=dataset, processing_class=tokenizer,
    peft_config=LoraConfig(**lora),
)
shutil.rmtree(OUT, ignore_errors=True)
trainer.model.save_pretrained(OUT / "adapter")
(OUT / "adapter" / "README.md").unlink(missing_ok=True)
path = OUT / "adapter" / "adapter_config.json"
path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}, indent=2, sort_keys=True) + "\n")
trainer.train()
trainer.model.save_pretrained(OUT / "last")
shutil.move(OUT / "last" / "adapter_model.safetensors", OUT / "final.safetensors")
shutil.rmtree(OUT / "last")
with open(OUT / "steps.jsonl", "w") as out:
    for row in trainer.state.log_history:
        if "loss" in row:
            row = {"step": row.pop("step"), **row}
            out.write(json.dumps(row) + "\n")
with open(OUT / "config.json", "w") as out:
    json.dump({"case": {"kind": "dpo", "adapter": "adapter"}, "args": arguments}, out, indent=1)
    out.write("\n")
