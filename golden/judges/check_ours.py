"""Runs onnx.checker over the judges that our own export writes, and records their digests.

    DPO_EVAL_WRITE_JUDGES=DIR cargo test --lib the_exports_are_those_that_onnx_checked
    python check_ours.py DIR    # onnx 1.23.2, onnxruntime 1.31.1

The test holds the export to ours.json: a file of another digest is one that the checker hasn't seen.
"""

import hashlib
import json
import pathlib
import sys

import onnx
import onnxruntime

folder, checked = pathlib.Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.onnx")):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    checked[path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
target = pathlib.Path(__file__).with_name("ours.json")
target.write_text(json.dumps({"versions": versions, "sha256": checked}, indent=1) + "\n")
