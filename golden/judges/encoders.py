"""What transformers 5.23 and PyTorch 2.15 make, in binary64, of the models in golden/models as encoders (`is_causal` false).

    python golden/judges/encoders.py

Writes encoders/NAME.safetensors for each case:
- `ids.0`, `ids.1`: two sequences, no longer than the narrowest window of the model's layers;
- `head`: (1, hidden); `scores`: of each sequence, the mean over its tokens of head · last hidden state (after the final norm), read from
  both sequences padded to one length, which must not matter;
- `weights`, and `grad.TENSOR`: the gradient of the sum of `scores` weighed by them, under the names of the model's file.

Every score must be another than a causal model's. Tests allow 1e-5 on scores, and 1e-3 of a tensor's largest gradient (binary32 against
binary64).
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent / "models"
NAMES = ["llama-llama3", "mistral-window", "qwen3", "gpt2", "gpt-neox", "phi", "gemma2", "gemma3"]
LONGEST = 9


def scores_of(folder, causal, ids, mask, head):
    config = AutoConfig.from_pretrained(folder)
    config.is_causal = causal
    model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float64, attn_implementation="eager").eval()
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return model, (states @ head[0] * mask).sum(1) / mask.sum(1)


def expected(folder):
    config = AutoConfig.from_pretrained(folder)
    window = getattr(config, "sliding_window", None) or LONGEST
    lengths = [min(LONGEST, window), min(LONGEST, window) // 2]
    ids = torch.randint(3, config.vocab_size, (2, lengths[0]))
    mask = torch.tensor([[1] * n + [0] * (lengths[0] - n) for n in lengths])
    head = torch.randn(1, config.hidden_size, dtype=torch.float64)
    weights = torch.tensor([1.0, -0.5], dtype=torch.float64)
    model, scores = scores_of(folder, False, ids, mask, head)
    _, causal = scores_of(folder, True, ids, mask, head)
    assert (scores - causal).abs().min() > 1e-3, (folder, scores, causal)
    alone = torch.cat([scores_of(folder, False, row[:n][None], torch.ones(1, n, dtype=torch.long), head)[1] for row, n in zip(ids, lengths)])
    assert (scores - alone).abs().max() < 1e-5, (folder, scores, alone)
    head.requires_grad_()
    model, scores = scores_of(folder, False, ids, mask, head)
    (scores * weights).sum().backward()
    tensors = {f"ids.{i}": row[:n] for i, (row, n) in enumerate(zip(ids, lengths))}
    tensors |= dict(head=head, scores=scores, weights=weights) | {"grad.score.weight": head.grad}
    tensors |= {f"grad.{model.base_model_prefix}.{name}": p.grad for name, p in model.named_parameters()}
    return {name: t.detach().float().contiguous() for name, t in tensors.items()}


if __name__ == "__main__":
    for name in NAMES:
        torch.manual_seed(sum(name.encode()))
        save_file(expected(MODELS / name), HERE / "encoders" / f"{name}.safetensors")
