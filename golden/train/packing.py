"""Bins of TRL's pack_dataset: golden/train/packing.json.

    python golden/train/packing.py

The tokens of each sequence say which sequence it is and where in it they stand, so that the packed rows tell what they hold. Bins are
compared exactly. `datasets` maps a thousand rows at a time, so the bins of longer data never mix rows of different thousands.
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


PLACES = 1000  # more than the longest sequence


def parts(ids):
    """Each stretch of one sequence: which one, where it starts in it, its tokens."""
    found = []
    for index, place in (divmod(i, PLACES) for i in ids):
        if found and found[-1][0] == index and found[-1][1] + found[-1][2] == place:
            found[-1][2] += 1
        else:
            found.append([index, place, 1])
    return found


def case(count, longest, max_length):
    lengths = [draw.randint(1, longest) for _ in range(count)]
    rows = {"input_ids": [[PLACES * index + place for place in range(length)] for index, length in enumerate(lengths)]}
    for strategy in ["bfd", "bfd_split", "wrapped"]:
        packed = trl.pack_dataset(datasets.Dataset.from_dict(rows), max_length, strategy)
        bins = [parts(row["input_ids"]) for row in packed]
        for row, bin in zip(packed, bins):
            assert strategy == "wrapped" or row["seq_lengths"] == [length for _, _, length in bin]
        yield {"strategy": strategy, "max_length": max_length, "lengths": lengths, "bins": bins}


golden = {
    "versions": {"trl": trl.__version__, "datasets": datasets.__version__},
    "seed": SEED,
    "cases": [recorded for c in CASES for recorded in case(*c)],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
