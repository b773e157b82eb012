"""Records the token ids that TRL's DPOTrainer makes of conversations, with a small byte-level tokenizer whose template is Zephyr's shape.

Versions: trl 1.16.0, transformers 5.23.0, tokenizers as they bring it. Run: python golden/chat/tokens.py
"""

import json
import tempfile
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

HERE = Path(__file__).parent
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
say = lambda role, content: {"role": role, "content": content}  # noqa: E731
ROWS = [
    {"prompt": [say("user", "Why is the sky blue?")], "chosen": [say("assistant", "Because of the air.")], "rejected": [say("assistant", "")]},
    {
        "prompt": [say("system", "Be brief."), say("user", "Hi"), say("assistant", " Hello! "), say("user", "naïve 漢 🙂?")],
        "chosen": [say("assistant", "\nYes.\n\n")],
        "rejected": [say("assistant", "No."), say("user", "Why?"), say("assistant", "So.")],
    },
]
# TRL splits implicit prompts by messages.
ROWS.append({side: ROWS[1]["prompt"] + ROWS[0][side] for side in ("chosen", "rejected")})

backend = Tokenizer(models.BPE())
backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
backend.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
)
backend.train_from_iterator([json.dumps(ROWS), "<|user|>\n<|assistant|>\n" * 3], trainer)
# As Llama's does: BOS before every text, which a template's own must not double.
backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = TEMPLATE
tokenizer.save_pretrained(HERE / "tokenizer")

config = LlamaConfig(
    vocab_size=320, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256
)
lines = []
for row in ROWS:
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(output_dir=folder, report_to=[], max_length=None, use_cpu=True)
        LlamaForCausalLM(config).save_pretrained(folder)
        made = DPOTrainer(
            model=folder, args=arguments, train_dataset=Dataset.from_list([row]), processing_class=tokenizer
        ).train_dataset[0]
    ids = {name: made[f"{name}_ids"] for name in ("prompt", "chosen", "rejected")}
    lines.append(json.dumps({"row": row, "ids": ids}, ensure_ascii=False))
(HERE / "tokens.jsonl").write_text("\n".join(lines) + "\n")
