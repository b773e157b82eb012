"""Tiny random models of the families that are trained here, and what transformers 5.23 and PyTorch 2.15 make of them in binary64.

    python golden/models/families.py [NAME…]
    python golden/models/families.py ours

Writes NAME/ for each case: the folder as transformers saves it, and expected.safetensors with
- `ids`: one sequence; `logits`: (tokens, vocabulary); `logps`: of each token after the first;
- `weights`, and `grad.TENSOR`: the gradient of the sum of `logps` weighed by them;
- `losses`: the mean negative log-probability before each of ten steps of SGD on that mean (rate 0.1, or `rate`) and after the last one.

The weights are those of the saved file, widened. Norms and biases are moved away from ones and zeros, so that each of them matters.
NAME/ours.json is config.json as it is written here (by the test `configurations_are_written_as_recorded`, DPO_EVAL_WRITE_CONFIGS=1). With
`ours`, transformers reads these instead and must find the same logits.

Tests allow 1e-4 on logits and log-probabilities, and 1e-3 of a tensor's largest gradient (binary32 against binary64).
"""

import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GemmaConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, PhiConfig,
    Qwen2Config, Qwen3Config,
)

HERE = pathlib.Path(__file__).parent
TOKENS = 20

SHAPE = dict(
    vocab_size=32, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.2, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16,
)
# Small caps and windows, so that each of them matters; layers of both kinds.
GEMMA = SHAPE | dict(head_dim=6, num_key_value_heads=1, num_attention_heads=2)
NEOX = dict(
    vocab_size=32, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
    initializer_range=0.2, bos_token_id=1, eos_token_id=2,
)
TURNED = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)
LOCAL = dict(rope_type="default", rope_theta=100.0)
CASES = {
    "llama-plain-bf16": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama-linear-biases-sharded": LlamaConfig(
        **SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0),
    ),
    "llama-llama3": LlamaConfig(**SHAPE, head_dim=6, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "mistral-window": MistralConfig(**SHAPE, sliding_window=5),
    "mistral-whole": MistralConfig(**SHAPE, sliding_window=None, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen2-windows": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": Qwen3Config(**SHAPE, head_dim=10, tie_word_embeddings=True),
    "qwen3-biases": Qwen3Config(**SHAPE, head_dim=6, attention_bias=True),
    "gpt2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2),
    "gpt2-untied": GPT2Config(
        vocab_size=32, n_embd=15, n_layer=2, n_head=3, n_inner=20, n_positions=64, initializer_range=0.2, activation_function="gelu",
        bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    ),
    "gpt-neox": GPTNeoXConfig(**NEOX, rope_parameters=TURNED),
    "gpt-neox-sequential": GPTNeoXConfig(
        **NEOX, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_new", tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=500.0, partial_rotary_factor=1.0),
    ),
    "phi": PhiConfig(**NEOX, num_key_value_heads=1, rope_parameters=TURNED),
    "gemma": GemmaConfig(**GEMMA),
    "gemma2": Gemma2Config(
        **GEMMA, sliding_window=5, query_pre_attn_scalar=10, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
    ),
    "gemma2-uncapped": Gemma2Config(
        **GEMMA, sliding_window=4, attention_bias=True, attn_logit_softcapping=None, final_logit_softcapping=None,
        layer_types=["full_attention", "sliding_attention"], tie_word_embeddings=False,
    ),
    "gemma3": Gemma3TextConfig(
        **GEMMA, sliding_window=5, query_pre_attn_scalar=10, layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=10000.0), sliding_attention=LOCAL),
    ),
    # transformers reads a cap of Gemma 3's scores and leaves it at that.
    "gemma3-sliding": Gemma3TextConfig(**GEMMA, sliding_window=3, final_logit_softcapping=3.0),
}
# Where steps of 0.1 go over edges that transformers itself passes otherwise in binary32.
GENTLE = {"gpt2": 0.03, "gemma2-uncapped": 0.03}


def saved(name, config):
    """The folder of a model whose every tensor matters."""
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for part, p in model.named_parameters():
            if part.endswith("bias"):
                p.normal_(std=0.3)
            elif p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.3)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model.bfloat16() if name.endswith("bf16") else model
    model.save_pretrained(folder, max_shard_size="6KB" if name.endswith("sharded") else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def logits_of(model, ids):
    return model(input_ids=ids).logits[0]


def logps_of(logits, ids):
    return logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def filed(folder, tensor):
    """What a tensor is called in files: transformers 5 has another name in memory for GPT-NeoX's head."""
    return "embed_out.weight" if folder.name.startswith("gpt-neox") and tensor == "lm_head.weight" else tensor


def expected(folder):
    wide = dict(dtype=torch.float64, attn_implementation="eager")
    model = AutoModelForCausalLM.from_pretrained(folder, **wide)
    ids = torch.randint(3, model.config.vocab_size, (1, TOKENS))
    weights = torch.randn(TOKENS - 1, dtype=torch.float64)
    logits = logits_of(model, ids)
    logps = logps_of(logits, ids)
    (logps * weights).sum().backward()
    tensors = dict(ids=ids[0], logits=logits, logps=logps, weights=weights)
    # A tied head is one tensor with the embeddings.
    tensors |= {f"grad.{filed(folder, name)}": p.grad for name, p in model.named_parameters()}
    losses = []
    rate = GENTLE.get(folder.name, 0.1)
    if folder.name in GENTLE:
        tensors["rate"] = torch.tensor([rate])
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(11):
        loss = -logps_of(logits_of(model, ids), ids).mean()
        losses.append(loss.detach())
        if step < 10:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    tensors["losses"] = torch.stack(losses)
    return {name: t.detach().float().contiguous() for name, t in tensors.items()}


def check_ours(folder):
    recorded = load_file(folder / "expected.safetensors")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        shutil.copy(folder / "ours.json", pathlib.Path(copy) / "config.json")
        model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        logits = logits_of(model, recorded["ids"].long()[None])
    # Another machine's sums in binary64 may round to the other neighbour.
    assert torch.allclose(logits.float(), recorded["logits"], rtol=0, atol=1e-6), folder


for name, config in CASES.items():
    if sys.argv[1:] == ["ours"]:
        check_ours(HERE / name)
        continue
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    torch.manual_seed(20261124)
    folder = saved(name, config)
    save_file(expected(folder), folder / "expected.safetensors")
    print(name)
