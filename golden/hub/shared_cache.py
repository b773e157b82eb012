"""Whether dpo-eval and huggingface_hub find in one cache what the other fetched.

    python golden/hub/shared_cache.py target/release/dpo-eval

Serves golden/lora/base with the tokenizer of golden/chat as org/tiny of a hub on this machine, weights as Git LFS keeps them. Then
- huggingface_hub fetches it, and dpo-eval computes log-probabilities from that cache with the network forbidden;
- dpo-eval fetches it into an empty cache, and huggingface_hub and transformers load it with the network forbidden;
- both fill one cache, and nothing is fetched twice.

Last run: huggingface_hub 2.4.0, transformers 5.23.0: passed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GOLDEN = Path(__file__).parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
READ = """
import sys
from huggingface_hub import hf_hub_download
from transformers import AutoModelForCausalLM, AutoTokenizer
hf_hub_download("org/tiny", "config.json", revision=sys.argv[1])
AutoTokenizer.from_pretrained("org/tiny", revision=sys.argv[1])
print(AutoModelForCausalLM.from_pretrained("org/tiny", revision=sys.argv[1]).num_parameters())
"""
FILL = "import sys; from huggingface_hub import snapshot_download as s; print(s('org/tiny', revision=sys.argv[1]))"
sent = []


def described(path):
    data = path.read_bytes()
    large = path.suffix == ".safetensors"
    digest = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return data, digest, large


class Hub(BaseHTTPRequestHandler):
    folder = None

    def log_message(self, *_):
        pass

    def answer(self, status, data, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/"):
            files = {p.name: described(p) for p in sorted(self.folder.iterdir())}
            siblings, tree = [], []
            for name, (data, digest, large) in files.items():
                git = digest if not large else "0" * 40
                siblings.append(dict(rfilename=name, size=len(data), blobId=git) | (dict(lfs=dict(sha256=digest, size=len(data))) if large else {}))
                tree.append(dict(type="file", path=name, size=len(data), oid=git) | (dict(lfs=dict(oid=digest, size=len(data), pointerSize=134)) if large else {}))
            whole = dict(id="org/tiny", sha=COMMIT, siblings=siblings, private=False, tags=[], downloads=0, likes=0)
            return self.answer(200, json.dumps(tree if "/tree/" in path else whole).encode(), Content_Type="application/json")
        file = self.folder / path.rsplit("/", 1)[1]
        if not file.is_file():
            return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        data, digest, _ = described(file)
        if self.command == "GET":
            sent.append(file.name)
        self.answer(200, data, X_Repo_Commit=COMMIT, ETag=f'"{digest}"')

    do_HEAD = do_GET


def run(cache, *command, online=False):
    """A command that may reach the hub above, or none."""
    environment = os.environ | dict(HF_HOME=str(cache), HF_ENDPOINT=endpoint) | ({} if online else dict(HF_HUB_OFFLINE="1"))
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


with tempfile.TemporaryDirectory() as work:
    work = Path(work)
    Hub.folder = work / "repository"
    shutil.copytree(GOLDEN / "lora/base", Hub.folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "chat/tokenizer" / name, Hub.folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    texts = work / "in.jsonl"
    texts.write_text('{"ids": [1, 5, 9, 11]}\n')
    ours = lambda cache, **how: run(cache, sys.argv[1], "logps", f"org/tiny@{COMMIT}", str(texts), **how)  # noqa: E731
    python = lambda cache, code, **how: run(cache, sys.executable, "-c", code, COMMIT, **how)  # noqa: E731

    python(work / "theirs", FILL, online=True)
    expected = ours(work / "theirs")
    assert ours(work / "ours", online=True) == expected
    assert int(python(work / "ours", READ)) > 0
    before = list(sent)
    python(work / "theirs", FILL, online=True)
    ours(work / "theirs", online=True)
    ours(work / "ours", online=True)
    assert sent == before, f"fetched again: {sent[len(before):]}"
    server.shutdown()
print(f"passed; {len(sent)} files were sent")
