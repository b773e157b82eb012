#!/usr/bin/env python3
"""Judging beside plain onnxruntime: same model, same texts, same batches, same number of threads, in one run.

    pip install torch transformers onnx onnxruntime==1.31.1 tokenizers
    cargo build --release -p dpo-eval-judging-benches
    python3 benches/judging/compare.py [--dir DIR] [--pairs 96] [--rounds 3] [--threads 2] [--model FOLDER]

DIR gets `model/` (a BERT of 10.9M parameters with random weights: hidden 384, 6 layers, 12 heads, as MiniLM has them, and the tokenizer of
golden/judges/bert) and `pairs.jsonl` (prompts of 20 to 80 words, answers of 10 to 90) unless it holds them; `--model` takes a
cross-encoder of yours (logits of "the first is better" and "the second is better" in its first two columns, and of a tie in a third).
Every pair is asked about in both orders. A round tokenises and scores all of them; rounds of the two sides alternate, each side in a
process of its own, as they would run. The best round counts. Answers must agree within 1e-4 in probability.
"""
import argparse, json, math, platform, random, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent.parent / "golden" / "judges" / "bert"
ROWS, TOKENS = 32, 4096  # of a batch, as src/judge/session/model.rs has them


def prepare(folder, count):
    import onnx, torch
    from transformers import BertConfig, BertForSequenceClassification

    draw = random.Random(1)
    words = "The lamp number is bright but the kettle is dull . Say why you like it or not".split()
    text = lambda least, most: " ".join(draw.choices(words, k=draw.randint(least, most)))
    rows = [dict(prompt=text(20, 80), chosen=text(10, 90), rejected=text(10, 90)) for _ in range(count)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / name, model / name)
    said = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(said | {"model_max_length": 512}))
    vocabulary = len(json.loads((model / "tokenizer.json").read_text())["model"]["vocab"])
    torch.manual_seed(0)
    config = BertConfig(vocab_size=vocabulary, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
                        num_labels=3, id2label={0: "A", 1: "B", 2: "tie"})  # fmt: skip
    classifier = BertForSequenceClassification(config).eval()
    config.save_pretrained(model)
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = classifier

        def forward(self, *inputs):
            return self.classifier(**dict(zip(names, inputs))).logits

    ids = torch.ones((2, 8), dtype=torch.long)
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    torch.onnx.export(Logits().eval(), (ids, ids, torch.zeros_like(ids)), model / "model.onnx", dynamo=False, input_names=names,
                      output_names=["logits"], dynamic_axes=axes, opset_version=17)  # fmt: skip
    onnx.checker.check_model(str(model / "model.onnx"))


def plain(folder, pairs, threads, rounds):
    """What one would write: tokenise all, sort by length, pad, run."""
    import numpy as np, onnxruntime
    from tokenizers import Tokenizer

    rows = [json.loads(line) for line in open(pairs)]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.enable_truncation(int(config["model_max_length"]))
    tokenizer.no_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def once():
        texts = [pair for r in rows for pair in (
            (f"{r['prompt']} {r['chosen']}", f"{r['prompt']} {r['rejected']}"),
            (f"{r['prompt']} {r['rejected']}", f"{r['prompt']} {r['chosen']}"))]  # fmt: skip
        encoded = tokenizer.encode_batch(texts)
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
        batches = []
        for i in order:
            if batches and len(batches[-1]) < ROWS and (len(batches[-1]) + 1) * len(encoded[batches[-1][0]].ids) <= TOKENS:
                batches[-1].append(i)
            else:
                batches.append([i])
        logits = np.zeros((len(encoded), 3), np.float32)
        for batch in batches:
            length = len(encoded[batch[0]].ids)
            given = {name: np.zeros((len(batch), length), np.int64) for name in names}
            for row, i in enumerate(batch):
                said = encoded[i]
                parts = {"input_ids": said.ids, "attention_mask": said.attention_mask, "token_type_ids": said.type_ids}
                for name in names:
                    given[name][row, : len(said.ids)] = parts[name]
            logits[batch] = session.run(["logits"], given)[0]
        p = np.exp(logits.astype(np.float64))
        answers = np.log((p[:, 0] + p[:, 2] / 2) / (p[:, 1] + p[:, 2] / 2))
        return [1 / (1 + math.exp(-(a - b) / 2)) for a, b in zip(answers[::2], answers[1::2])], sum(len(e.ids) for e in encoded)

    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        preferences, tokens = once()
        seconds.append(time.perf_counter() - start)
    return dict(seconds=seconds, preferences=preferences, tokens=tokens, version=onnxruntime.__version__)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--binary", type=Path, default=HERE.parents[1] / "target" / "release" / "dpo-eval-judging-benches")
    for name, default in [("pairs", 96), ("rounds", 3), ("threads", 2)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prepare", action="store_true", help="fill DIR and stop")
    parser.add_argument("--plain", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        folder, pairs, threads, rounds = options.plain
        print(json.dumps(plain(Path(folder), pairs, int(threads), int(rounds))))
        return
    folder = options.dir or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pairs.jsonl").exists():
        prepare(folder, options.pairs)
    if options.prepare:
        return
    model, arguments = options.model or folder / "model", [str(options.threads), "1"]
    sides = {
        "plain onnxruntime": [sys.executable, __file__, "--plain", str(model), str(folder / "pairs.jsonl"), *arguments],
        "dpo-eval": [str(options.binary), str(model), str(folder / "pairs.jsonl"), *arguments],
    }
    seconds, last = {name: [] for name in sides}, {}
    for _ in range(options.rounds):
        for name, command in sides.items():
            last[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            seconds[name] += last[name]["seconds"]
    ours, theirs = last["dpo-eval"], last["plain onnxruntime"]
    apart = max(abs(a - b) for a, b in zip(ours["preferences"], theirs["preferences"]))
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, {len(ours['preferences'])} pairs in both orders, "
          f"{theirs['tokens']} tokens, onnxruntime {theirs['version']} and {ours['session']['runtime_version']}, "
          f"asked {ours['session']['batching']}")  # fmt: skip
    for name in sides:
        best, median = min(seconds[name]), statistics.median(seconds[name])
        print(f"{name:18} best {best:7.3f} s, median {median:7.3f} s, {theirs['tokens'] / best:9.0f} tokens/s")
    best, median = (f(seconds["plain onnxruntime"]) / f(seconds["dpo-eval"]) for f in (min, statistics.median))
    print(f"throughput of ours / theirs: {best:.3f} by the best round, {median:.3f} by the median; preferences at most {apart:.1e} apart")
    if apart > 1e-4:
        sys.exit("the two sides disagree")


main()
