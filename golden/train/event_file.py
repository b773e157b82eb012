"""An event file by tensorboard's own writer: golden/train/events.out.tfevents, which src/train/tensorboard.rs must meet byte for byte.

    python golden/train/event_file.py             # writes the file, with tensorboard 2.21.0
    python golden/train/event_file.py FOLDER      # prints what tensorboard reads in a folder of ours

Wall times are the steps: see src/train/tensorboard.rs.
"""

import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def write(path):
    def scalars(step, values):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        writer.write(Event(wall_time=step, step=step, summary=summary).SerializeToString())

    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())
        for step in (1, 2, 3):
            scalars(
                step,
                {
                    "train/epoch": 0.25 * step,
                    "train/grad_norm": 1.5,
                    "train/learning_rate": 0.0,
                    "train/loss": 0.5,
                    "train/num_tokens": 300 * step,
                    "train/rewards/margins": -0.125,
                },
            )
            if step == 2:
                scalars(step, {"eval/loss": 0.75})


def read(folder):
    events = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        print(tag, [(e.step, round(e.value, 6)) for e in events.Scalars(tag)])


if len(sys.argv) > 1:
    read(sys.argv[1])
else:
    write(pathlib.Path(__file__).with_name("events.out.tfevents"))
