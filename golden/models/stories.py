"""What transformers 5.23 (binary64) makes of texts under the pretrained Llama of ../shared/models/stories260k.

    python golden/models/stories.py ../shared/models/stories260k

Writes stories.json: the greedy story from the start token (200 tokens), and for texts that were written for this test their ids, the sum
of the log-probabilities of all tokens after the first, and the perplexity. The test allows 1e-4 on perplexities.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [
    "Tom had a blue kite. He ran up the hill with it, and the wind took it high into the sky.",
    "The cat did not like the rain. She sat under the table and waited for the sun.",
    "Mia's grandmother baked bread on Sundays; the whole street smelled of it, and nobody stayed in bed.",
    "\"Where is my hat?\" asked the old man. It was on his head.",
]

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    start = torch.tensor([[tokenizer.bos_token_id]])
    story = model.generate(start, do_sample=False, max_new_tokens=200, eos_token_id=None, pad_token_id=0)[0]
    rows = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        rows.append(dict(text=text, ids=ids[0].tolist(), logp=logps.sum().item(), perplexity=(-logps.mean()).exp().item()))
made = dict(story=tokenizer.decode(story, skip_special_tokens=True), story_ids=story.tolist(), texts=rows)
(pathlib.Path(__file__).parent / "stories.json").write_text(json.dumps(made, indent=1) + "\n")
print(made["story"], [row["perplexity"] for row in rows])
