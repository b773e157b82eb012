"""A tiny Llama under a PEFT adapter: what PEFT 0.21 and PyTorch in binary64 make of it.

    python golden/lora/peft_model.py

Writes, beside this file,
- base/: the model, as transformers saves it;
- adapter/: a PEFT folder with random A and B, as PEFT saves it;
- expected.safetensors: `logps`, the log-probability of each token of `ids` after the first; `grad.NAME`, the gradient of their sum
  weighed by `weights` for each of the adapter's tensors; `rslora.logps`, the same scores with use_rslora; `merged.NAME`, the base's
  weights after merge_and_unload.

With `ours`, written by the test `an_adapter_written_here_is_the_one_that_peft_merged` (DPO_EVAL_WRITE_ADAPTER=1), it also has PEFT
load that folder and merge it: ours/merged.safetensors.

Tests allow 2e-5 on scores and on gradients relative to a tensor's largest (binary32 against binary64), 1e-6 on merged weights.
"""

import copy
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
torch.manual_seed(20261123)

config = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=4, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=True, rms_norm_eps=1e-5,
)
base = LlamaForCausalLM(config).float()
base.save_pretrained(HERE / "base")
(HERE / "base" / "generation_config.json").unlink(missing_ok=True)


def adapted(use_rslora):
    settings = LoraConfig(
        r=3, lora_alpha=5, use_rslora=use_rslora, task_type="CAUSAL_LM",
        target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
    )
    return get_peft_model(copy.deepcopy(base), settings)


def clean(tensors, prefix):
    return {prefix + name: t.detach().float().contiguous() for name, t in tensors.items()}


def merged(model):
    tensors = model.merge_and_unload().state_dict()
    return {n: t for n, t in tensors.items() if n != "lm_head.weight"}


model = adapted(False)
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.normal_(std=0.3)
model.save_pretrained(HERE / "adapter")
(HERE / "adapter" / "README.md").unlink(missing_ok=True)

ids = torch.randint(3, 40, (1, 17))
weights = torch.randn(16)


def logps(model):
    logits = model(input_ids=ids).logits
    return torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]


wide = copy.deepcopy(model).double()
scores = logps(wide)
(scores * weights.double()).sum().backward()
short = lambda name: name.replace(".default", "")
expected = {"ids": ids[0].int().float(), "weights": weights, "logps": scores.detach().float()}
expected |= {"grad." + short(n): p.grad.float() for n, p in wide.named_parameters() if p.grad is not None}
rslora = adapted(True)
rslora.load_state_dict(model.state_dict())
expected["rslora.logps"] = logps(rslora.double()).detach().float()
expected |= clean(merged(model), "merged.")
save_file(expected, HERE / "expected.safetensors", metadata={"format": "pt"})

ours = HERE / "ours"
if ours.exists():
    loaded = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(HERE / "base", dtype=torch.float32), ours)
    found = {short(n) for n, _ in loaded.named_parameters() if "lora_" in n}
    assert found == set(load_file(ours / "adapter_model.safetensors")), "PEFT knows other tensors"
    save_file(clean(merged(loaded), ""), ours / "merged.safetensors", metadata={"format": "pt"})
