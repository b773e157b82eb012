"""Writes the Parquet files of the readers' tests as Hugging Face's `datasets` writes its shards.

Versions: pyarrow 26.0.1, datasets 5.2.0. Run: python golden/data/files.py
"""

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet

HERE = Path(__file__).parent
SAY = lambda role, content: {"role": role, "content": content}  # noqa: E731

# TRL's conversational form with an explicit prompt; a column of a type that JSON lacks, which no form reads; several row groups.
CONVERSATIONS = [
    {
        "prompt": [SAY("system", "Be brief."), SAY("user", f"What is {n} + {n}?")],
        "chosen": [SAY("assistant", f"{2 * n}")],
        "rejected": [SAY("assistant", f"{2 * n + 1}, naïvely 漢")],
        "score": n / 4,
        "raw": bytes([255, n]),
    }
    for n in range(5)
]
# TRL's unpaired form; row 4 has a label that is neither true nor false.
LABELLED = [
    {"prompt": f"p{n}", "completion": f"c{n}", "label": None if n == 3 else n % 2 == 0} for n in range(5)
]

for codec in ("snappy", "zstd", "gzip"):
    table = datasets.Dataset.from_list(CONVERSATIONS).data.table
    pyarrow.parquet.write_table(table, HERE / f"conversations.{codec}.parquet", compression=codec, row_group_size=2)
table = datasets.Dataset.from_list(LABELLED).data.table
pyarrow.parquet.write_table(table, HERE / "labelled.parquet", compression="snappy")
# A compression that isn't read.
pyarrow.parquet.write_table(table, HERE / "labelled.brotli.parquet", compression="brotli")
