"""Adapters of PEFT 0.21 over models of golden/models whose linear layers have other names or another layout than Llama's.

    python golden/lora/families.py

Writes, for each NAME, NAME/adapter_config.json and NAME/adapter_model.safetensors as PEFT saves them, with random A and B, and
NAME/expected.safetensors: `ids`; `logps` in binary64 of each token after the first under the adapter; `weights`, and `grad.TENSOR`, the
gradient of their sum weighed by them; `merged.TENSOR`, the base's weights after merge_and_unload.

NAME/ours is the adapter as it is written here (by the test `adapters_of_other_families_are_those_of_peft`, DPO_EVAL_WRITE_ADAPTER=1). PEFT
must load it without a tensor left over and find the same log-probabilities.

Tests allow 2e-5 on scores and on gradients relative to a tensor's largest (binary32 against binary64), 1e-6 on merged weights.
"""

import copy
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent / "models"
CASES = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt-neox": ["query_key_value", "dense", "dense_4h_to_h"],
    "phi": ["q_proj", "dense", "fc1", "fc2"],
}


def base(name):
    return AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32, attn_implementation="eager")


def logps(model, ids):
    logits = model(input_ids=ids).logits
    return logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


for name, targets in CASES.items():
    torch.manual_seed(20261129)
    model = get_peft_model(base(name), LoraConfig(r=2, lora_alpha=3, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for tensor, p in model.named_parameters():
            if "lora_B" in tensor:
                p.normal_(std=0.3)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    ids = torch.randint(3, 32, (1, 14))
    weights = torch.randn(13, dtype=torch.float64)
    wide = copy.deepcopy(model).double().eval()
    scores = logps(wide, ids)
    (scores * weights).sum().backward()
    expected = dict(ids=ids[0].float(), logps=scores, weights=weights)
    expected |= {f"grad.{n.replace('.default', '')}": p.grad for n, p in wide.named_parameters() if p.grad is not None}
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    # A tied head is no tensor of its own, and GPT-NeoX's has another name in files.
    heads = {"gpt2": None, "gpt-neox": "embed_out.weight"}
    names = {n: heads.get(name, n) if n == "lm_head.weight" else n for n in merged}
    expected |= {f"merged.{names[n]}": t for n, t in merged.items() if names[n]}
    save_file({n: t.detach().float().clone().contiguous() for n, t in expected.items()}, folder / "expected.safetensors")
    ours = folder / "ours"
    if ours.exists():
        loaded = PeftModel.from_pretrained(base(name), ours)
        found = {n.replace(".default", "") for n, _ in loaded.named_parameters() if "lora_" in n}
        assert found == set(load_file(ours / "adapter_model.safetensors")), "PEFT knows other tensors"
        assert torch.allclose(logps(loaded.double().eval(), ids), scores, atol=1e-6), name
    print(name)
