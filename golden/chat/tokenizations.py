"""Records what earlier TRL trainers, and those that still do as they did, make of texts, with the tokenizer of this folder.

    pip download trl==0.19.1 --no-deps && unzip -d trl-0.19.1 trl-0.19.1-py3-none-any.whl
    python golden/chat/tokenizations.py trl-0.19.1

tokenizations.jsonl, a line a pair:
- `separate`: DPOTrainer.tokenize_row of TRL 0.19.1 (so from 0.12 to 0.28), without truncation: `prompt`, `chosen`, `rejected`;
- `walk_back`: CPOTrainer.tokenize_row of TRL 1.16 (DPOTrainer's until 0.11): for each side all ids, and how many of them are its prompt; or TRL's error.

Versions: trl 1.16.0, transformers 5.23.0, tokenizers as they bring it. The ids must come out exactly.
"""

import ast
import json
import sys
from pathlib import Path
from types import MethodType, SimpleNamespace

from transformers import AutoTokenizer
from trl.experimental.cpo import CPOTrainer

HERE = Path(__file__).parent
PAIRS = [
    ("Why is the sky blue?", " Because of the air.", " No."),
    # The space belongs to the answers' first words, or to one of them alone.
    ("Why is the sky blue? ", "Because of the air.", "Because."),
    ("Why is the sky ", "blue", "bright"),
    ("Why is the sky ", "blue", "\n"),
    # In the middle of a word.
    ("Be brie", "f.", "fly"),
    ("Hi", "", "!"),
    ("", "Yes", "No"),
    # Special tokens that stand in the texts already.
    ("<s>Hi", " Hello</s>", " Hello</s> So."),
    ("naïve 漢 🙂?", " 漢", "🙂"),
]

tokenizer = AutoTokenizer.from_pretrained(HERE / "tokenizer")
source = (Path(sys.argv[1]) / "trl/trainer/dpo_trainer.py").read_text()
functions = [f for f in ast.walk(ast.parse(source)) if isinstance(f, ast.FunctionDef) and f.name == "tokenize_row"]
functions[0].decorator_list = []
old = {}
exec(compile(ast.Module(functions[:1], []), "dpo_trainer.py", "exec"), old)

cpo = SimpleNamespace(processing_class=tokenizer, is_encoder_decoder=False, max_length=10**6)
cpo.build_tokenized_answer = MethodType(CPOTrainer.build_tokenized_answer, cpo)

lines = []
for prompt, chosen, rejected in PAIRS:
    row = dict(prompt=prompt, chosen=chosen, rejected=rejected)
    made = old["tokenize_row"](row, tokenizer, None, None, False)
    separate = {name: made[f"{name}_input_ids"] for name in row}
    try:
        made = CPOTrainer.tokenize_row(cpo, row)
        walk_back = {
            side: dict(ids=made[f"{side}_input_ids"], prompt=made[f"{side}_labels"].count(-100)) for side in ("chosen", "rejected")
        }
    except ValueError as error:
        walk_back = str(error)
    lines.append(json.dumps(dict(row=row, separate=separate, walk_back=walk_back), ensure_ascii=False))
(HERE / "tokenizations.jsonl").write_text("\n".join(lines) + "\n")
