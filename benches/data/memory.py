"""Peak memory of what reads a file of pairs, for a small and a thirty times larger one: it should not grow with the file.

Run: python3 benches/data/memory.py MODEL_FOLDER [ROWS], after cargo build --release. The pairs are made of random words, so that no two are
alike; the suite splits the file, audits it and trains two steps on it.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

model = Path(sys.argv[1]).resolve()
rows = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
program = Path(__file__).parents[2] / "target/release/dpo-eval"

SUITE = """
name = "memory"
seed = 1
seeds = [1]
[dataset]
kind = "pairs"
path = "pairs.jsonl"
heldout_share = {share}
judge_share = {share}
eval_share = {share}
eval_prompts = 8
[model]
path = {model}
[train]
learning_rate = 1e-5
lr_scheduler_type = "constant"
max_steps = 2
per_device_train_batch_size = 4
precompute_ref_log_probs = false
[[variant]]
name = "dpo"
beta = 0.1
[generate]
max_new_tokens = 8
samples_per_prompt = 1
[[judge]]
name = "rule"
kind = "rubric"
[judge.fitness]
probes = 0
[[judge.rule]]
contains = "a"
per_match = true
weight = 0.1
"""


def pairs(path: Path, count: int) -> None:
    draw = random.Random(7)
    words = ["".join(draw.choice("aeioustrnl") for _ in range(draw.randint(2, 7))) for _ in range(3000)]
    text = lambda n: " ".join(draw.choice(words) for _ in range(n))
    with path.open("w") as file:
        for _ in range(count):
            file.write(json.dumps({"prompt": text(40), "chosen": " " + text(60), "rejected": " " + text(60)}) + "\n")


def peak(*arguments: str) -> float:
    """MB"""
    child = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, cwd=folder)
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), arguments
    return usage.ru_maxrss / 1024


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for count in (rows, 30 * rows):
        pairs(folder / "pairs.jsonl", count)
        # As many rows are measured whatever the file: what a report tells of each is another matter.
        suite = SUITE.format(share=200 / count, model=json.dumps(str(model)))
        (folder / "suite.toml").write_text(suite)
        (folder / "out.jsonl").unlink(missing_ok=True)
        size = (folder / "pairs.jsonl").stat().st_size / 1e6
        print(f"{count} pairs, {size:.0f} MB:")
        print(f"  data convert          {peak('data', 'convert', 'pairs.jsonl', 'out.jsonl', '--to', 'completions'):6.0f} MB", flush=True)
        print(f"  data audit FILE       {peak('data', 'audit', 'pairs.jsonl', '--tokenizer', str(model), '--max-length', '256'):6.0f} MB", flush=True)
        print(f"  data audit SUITE      {peak('data', 'audit', 'suite.toml'):6.0f} MB", flush=True)
        print(f"  suite run             {peak('suite', 'run', 'suite.toml', '--quiet', '--store', f'store-{count}', '--report-dir', 'report'):6.0f} MB", flush=True)
