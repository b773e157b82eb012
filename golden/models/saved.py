"""Whether transformers loads what dpo-eval saves, and finds the same logits in it.

    python golden/models/saved.py target/release/dpo-eval

For each model of this folder: PEFT 0.21 makes a random adapter over all its linear layers and saves it, `dpo-eval merge` writes the merged
model as a plain folder, and transformers 5.23 loads that without a tensor missing or left over. Its logits (binary64 sums over the
binary32 weights of the file) must be those of the model that PEFT merged within 1e-4. saved.json: how far apart they were.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LINEARS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
}
WIDE = dict(dtype=torch.float64, attn_implementation="eager")

apart = {}
for folder in sorted(path.parent for path in HERE.glob("*/expected.safetensors")):
    torch.manual_seed(20261129)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    linears = LINEARS.get(base.config.model_type, LLAMA)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=linears, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    ids = load_file(folder / "expected.safetensors")["ids"].long()[None]
    with tempfile.TemporaryDirectory() as work, torch.no_grad():
        adapter, merged = f"{work}/adapter", f"{work}/merged"
        model.save_pretrained(adapter)
        command = [sys.argv[1], "merge", adapter, "--base", str(folder), "--output", merged]
        subprocess.run(command, check=True)
        saved, report = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True, **WIDE)
        assert not any(report.values()), (folder, report)
        theirs = model.merge_and_unload().double()
        found, expected = saved(input_ids=ids).logits, theirs(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(folder, **WIDE)(input_ids=ids).logits
    assert (plain - expected).abs().max() > 0.01, (folder, "the adapter changes nothing")
    apart[folder.name] = float(f"{(found - expected).abs().max().item():.2g}")
    print(folder.name, apart[folder.name])
    assert apart[folder.name] < 1e-4, folder
(HERE / "saved.json").write_text(json.dumps(apart, indent=2) + "\n")
