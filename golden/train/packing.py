"""Bins of TRL's pack_dataset: golden/train/packing.json.

    python golden/train/packing.py

Each sequence is its own index, repeated, so that the packed rows tell which sequences they hold. Bins are compared exactly.
`datasets` maps a thousand rows at a time, so the bins of longer data never mix rows of different thousands.
"""

import json
import pathlib
import random

import datasets
import trl

SEED = 20261123
CASES = [  # how many sequences, their greatest length, tokens a bin
    (1, 5, 8),
    (12, 9, 9),
    (40, 6, 8),
    (60, 50, 32),
    (200, 40, 100),
    (2300, 30, 64),
]
draw = random.Random(SEED)


def case(count, longest, max_length):
    lengths = [draw.randint(1, longest) for _ in range(count)]
    rows = {"input_ids": [[index] * length for index, length in enumerate(lengths)]}
    packed = trl.pack_dataset(datasets.Dataset.from_dict(rows), max_length, "bfd")
    bins = []
    for row in packed:
        starts = [sum(row["seq_lengths"][:i]) for i in range(len(row["seq_lengths"]))]
        bins.append([row["input_ids"][start] for start in starts])
    return {"max_length": max_length, "lengths": lengths, "bins": bins}


golden = {
    "versions": {"trl": trl.__version__, "datasets": datasets.__version__},
    "seed": SEED,
    "cases": [case(*c) for c in CASES],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
