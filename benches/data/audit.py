"""Time and peak memory of auditing and tokenising the 2,312 transcripts of HH-RLHF's harmless test split.

Goal: under 3 s and 200 MB. Run: python3 benches/data/audit.py MODEL_FOLDER HH_FILE, after cargo build --release.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

model, data = sys.argv[1:]
program = Path(__file__).parents[2] / "target/release/dpo-eval"
command = [program, "data", "audit", data, "--layout", "hh", "--tokenizer", model, "--max-length", "512", "--format", "json"]
best = float("inf")
for _ in range(5):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    best = min(best, time.perf_counter() - start)
print(f"best of 5: {best:.2f} s; peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")
