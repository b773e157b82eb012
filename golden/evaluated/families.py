"""Tiny random models of families that are evaluated through candle-transformers, and what transformers 5.23 and PyTorch 2.15 make of them in
binary64.

    python golden/evaluated/families.py [NAME…]

Writes NAME/ for each case: the folder as transformers saves it, and expected.safetensors with
- `ids`: one sequence; `logits`: (tokens, vocabulary); `logps`: of each token after the first.

The weights are those of the saved file, widened. Norms and biases are moved away from ones and zeros, so that each of them matters, and
rows of a router are spread out, so that which experts are asked doesn't hang on a last bit.

Tests allow 1e-4 (candle computes in binary32). Two families were tried and left out, since candle-transformers 0.11.1 finds other logits
(`python golden/evaluated/families.py left-out FOLDER` writes them): Falcon, whose GELU it approximates (5e-4 apart), and Granite, whose
multipliers it passes over (2.4 apart).
"""

import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM, FalconConfig, Glm4Config, GraniteConfig, HeliumConfig, MixtralConfig, Olmo2Config, OlmoConfig, Phi3Config,
    Qwen2MoeConfig, Qwen3MoeConfig, SmolLM3Config, StableLmConfig, Starcoder2Config,
)

HERE = pathlib.Path(__file__).parent
TOKENS = 20

SHAPE = dict(
    vocab_size=32, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
RMS = SHAPE | dict(rms_norm_eps=1e-5)
HALF = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)
CASES = {
    "mixtral": MixtralConfig(**RMS, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "qwen2_moe": Qwen2MoeConfig(
        **RMS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20, decoder_sparse_step=2,
    ),
    "qwen3_moe": Qwen3MoeConfig(
        **RMS, head_dim=10, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, decoder_sparse_step=1, norm_topk_prob=True,
        tie_word_embeddings=True,
    ),
    "starcoder2": Starcoder2Config(**SHAPE, sliding_window=None),
    "stablelm": StableLmConfig(**SHAPE, use_qkv_bias=True, rope_parameters=HALF),
    "olmo": OlmoConfig(**SHAPE, tie_word_embeddings=True, clip_qkv=0.7),
    "olmo2": Olmo2Config(**RMS),
    "phi3": Phi3Config(**RMS),
    "phi3-partial": Phi3Config(**RMS, tie_word_embeddings=True, rope_parameters=HALF),
    "glm4": Glm4Config(**RMS, head_dim=4, attention_bias=True, rope_parameters=HALF),
    "smollm3": SmolLM3Config(**RMS, no_rope_layer_interval=2, tie_word_embeddings=True),
    "helium": HeliumConfig(**RMS, head_dim=4),
}
LEFT_OUT = {
    "granite": GraniteConfig(**RMS, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22, attention_multiplier=0.3),
    "falcon": FalconConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, new_decoder_architecture=False, multi_query=True, parallel_attn=True, alibi=False, bias=False,
    ),
}


def saved(folder, config):
    """The folder of a model whose every tensor matters."""
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for part, p in model.named_parameters():
            if part.endswith("bias"):
                p.normal_(std=0.3)
            elif p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.3)
            elif part.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight")):
                p.mul_(5)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def expected(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager")
    ids = torch.randint(3, model.config.vocab_size, (1, TOKENS))
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    logps = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    tensors = dict(ids=ids[0], logits=logits, logps=logps)
    return {name: t.float().contiguous() for name, t in tensors.items()}


wanted, root, cases = sys.argv[1:], HERE, CASES
if wanted[:1] == ["left-out"]:
    root, cases, wanted = pathlib.Path(wanted[1]), LEFT_OUT, []
for name, config in cases.items():
    if wanted and name not in wanted:
        continue
    torch.manual_seed(20261129)
    saved(root / name, config)
    save_file(expected(root / name), root / name / "expected.safetensors")
    print(name)
