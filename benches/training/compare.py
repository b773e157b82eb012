#!/usr/bin/env python3
"""Training and decoding beside TRL and transformers: same model, same pairs, same batches, in one run.

    pip install torch transformers trl==1.16.0 datasets
    cargo build --release -p dpo-eval-training-benches
    python3 benches/training/compare.py [--dir DIR] [--rounds 3] [--steps 32] [--threads 2] [--ten-times]

DIR gets `model/` (a Llama of 12.6M parameters with random weights: hidden 384, 6 layers, 6 heads, 2 of keys and values, inner 1024,
vocabulary 4096, untied) and `data.jsonl` (256 pairs: prompts of 64 to 128 made-up words, answers of 32 to 96) unless it holds them.
Each round runs every contender once, in turn, each in a process of its own. Times are of the best and of the median step;
memory is the process's peak. The loss curves are compared step by step. With `--ten-times` ours alone runs on 64 of these pairs and on
ten times as many, the same ones ten times over: what an operation costs, and the memory. With `--lora` ours alone trains all weights and
adapters of rank 16 in turn, eight steps at a time: what a step under an adapter takes of a full one.
"""
import argparse, json, os, platform, random, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LLAMA = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, intermediate_size=1024,
             max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=False)


def prepare(folder):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    draw = random.Random(1)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = sorted({"".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(1700)})
    weights = [1 / (rank + 10) for rank in range(len(words))]
    text = lambda least, most: " ".join(draw.choices(words, weights, k=draw.randint(least, most)))
    rows = [dict(prompt=text(64, 128), chosen=" " + text(32, 96), rejected=" " + text(32, 96)) for _ in range(256)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator((text(64, 128) for _ in range(6000)), trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder / "model")
    torch.manual_seed(0)
    ids = dict(bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(fast), **ids, **LLAMA)).float().save_pretrained(folder / "model")
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data.jsonl").write_text(lines(rows))
    for name, rows in [("few", rows[:64]), ("ten-times", 10 * rows[:64])]:
        (folder / name).mkdir()
        (folder / name / "model").symlink_to(folder.resolve() / "model")
        (folder / name / "data.jsonl").write_text(lines(rows))


def peak_mb():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def trl(folder, precompute, steps, threads):
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    import torch
    torch.set_num_threads(threads)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Clock(TrainerCallback):
        seconds = []
        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()
        def on_step_end(self, *_, **__):
            self.seconds.append(time.perf_counter() - self.start)

    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=8, num_train_epochs=1, max_steps=steps, learning_rate=1e-4,
        lr_scheduler_type="constant", warmup_steps=0, beta=0.1, loss_type=["sigmoid"], max_length=None, bf16=False, fp16=False,
        use_cpu=True, gradient_checkpointing=False, train_sampling_strategy="sequential", precompute_ref_log_probs=precompute,
        logging_steps=1, report_to=[], save_strategy="no", seed=0, disable_tqdm=True, dataloader_pin_memory=False)
    rows = [json.loads(line) for line in open(folder / "data.jsonl")]
    start = time.perf_counter()
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32), args=config,
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(folder / "model"), callbacks=[Clock()])
    reference = time.perf_counter() - start
    trainer.train()
    seconds = sorted(Clock.seconds)
    return dict(steps=len(seconds), reference_s=reference, s_per_step_min=seconds[0], s_per_step_median=seconds[len(seconds) // 2],
                s_per_step_max=seconds[-1], peak_mb=peak_mb(), losses=[h["loss"] for h in trainer.state.log_history if "loss" in h])


def transformers_decode(folder, threads):
    import torch
    torch.set_num_threads(threads)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    rows = [json.loads(line) for line in open(folder / "data.jsonl")][:32]
    batch = tokenizer([row["prompt"] for row in rows], return_tensors="pt", padding=True, return_token_type_ids=False)
    best = 0.0
    for seed in range(5):
        torch.manual_seed(seed)
        start = time.perf_counter()
        out = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64)
        new = out[:, batch["input_ids"].shape[1]:]
        # As many as were wanted: what follows the end of a sequence is padding.
        tokens = sum(row.tolist().index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row) for row in new)
        best = max(best, tokens / (time.perf_counter() - start))
    return dict(tokens_per_s=best, peak_mb=peak_mb())


def ours(folder, what, threads):
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "release/dpo-eval-training-benches"
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    return json.loads(subprocess.run([target, *what, folder], env=environment, check=True, capture_output=True, text=True).stdout)


def theirs(arguments, what):
    command = [sys.executable, __file__, "--dir", arguments.dir, "--steps", arguments.steps, "--threads", arguments.threads, "--only", what]
    out = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def spread(values):
    return f"{min(values):9.3f} {statistics.median(values):9.3f} {max(values):9.3f}"


def adapters(folder, name, reference, rounds, threads):
    whats = ["train", "train-lora", "train-lora-all"]
    runs = {what: [] for what in whats}
    for _ in range(rounds):
        for what in whats:
            runs[what].append(ours(folder, [what + reference], threads))
    steps = {what: [s for run in runs[what] for s in run["s_of_steps"]] for what in whats}
    for what in whats:
        parts = ", ".join(f"{part} {min(run[part + '_s'] for run in runs[what]):.3f}" for part in ("forward", "loss", "backward"))
        share = lambda of: of(steps[what]) / of(steps["train"])
        print(f"{name}, {what}: {len(steps[what])} steps, median {statistics.median(steps[what]):.3f} s, best {min(steps[what]):.3f} s, "
              f"of the full step {share(statistics.median):.3f} and {share(min):.3f}; {parts}; {max(run['peak_mb'] for run in runs[what])} MB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "dpo-eval-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ten-times", action="store_true")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--only", help="one contender, in this process")
    arguments = parser.parse_args()
    folder, steps, threads = arguments.dir, arguments.steps, arguments.threads
    contenders = {
        "TRL": lambda: trl(folder, False, steps, threads),
        "TRL precomputed": lambda: trl(folder, True, steps, threads),
        "transformers decode": lambda: transformers_decode(folder, threads),
    }
    if arguments.only:
        return print(json.dumps(contenders[arguments.only]()))
    if not (folder / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
    if arguments.ten_times:
        for name, what in [("reference within the step", "train"), ("precomputed", "train-precomputed")]:
            once, tenfold = (ours(f, [what], threads) for f in (folder / "few", folder / "ten-times"))
            cost = lambda r: (r["reference_s"] + r["s_per_step_mean"] * r["steps"]) / (r["gflop_per_step"] * r["steps"])
            print(f"{name}: {tenfold['steps']} steps beside {once['steps']}: {cost(tenfold) / cost(once):.3f} times the seconds an operation, "
                  f"{tenfold['peak_mb']} MB beside {once['peak_mb']}")
        return
    if arguments.lora:
        for name, reference in [("reference within the step", ""), ("precomputed", "-precomputed")]:
            adapters(folder / "few", name, reference, arguments.rounds, threads)
        return
    results = {}
    for _ in range(arguments.rounds):
        for name in contenders:
            results.setdefault(name, []).append(theirs(arguments, name))
        for name, what in [("ours", ["train"]), ("ours precomputed", ["train-precomputed"]), ("ours decode", ["decode"])]:
            results.setdefault(name, []).append(ours(folder, what, threads))
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    print(f"{model}, {threads} threads, {arguments.rounds} rounds; seconds a step: least, median and most of the rounds' medians; peak MB")
    for name, runs in results.items():
        key = "s_per_step_median" if "steps" in runs[0] else "tokens_per_s"
        print(f"{name:22}{spread([r[key] for r in runs])} {max(r['peak_mb'] for r in runs):8}")
    best = lambda name, key: min(r[key] for r in results[name])
    for a, b in [("TRL", "ours"), ("TRL precomputed", "ours precomputed")]:
        pairs = list(zip(results[a][0]["losses"], results[b][0]["losses"]))
        print(f"{a} / {b}: {best(a, 's_per_step_min') / best(b, 's_per_step_min'):.2f} (best step), "
              f"{best(a, 's_per_step_median') / best(b, 's_per_step_median'):.2f} (median step), "
              f"memory {best(b, 'peak_mb') / best(a, 'peak_mb'):.2f}, largest relative difference of {len(pairs)} losses "
              f"{max(abs(x - y) / abs(x) for x, y in pairs):.1e}")
    decode = {name: max(r["tokens_per_s"] for r in results[name]) for name in ("ours decode", "transformers decode")}
    print(f"decoding, ours / transformers: {decode['ours decode'] / decode['transformers decode']:.2f}")
    step = min(results["ours precomputed"], key=lambda r: r["s_per_step_median"])
    print("one step of ours: " + ", ".join(f"{k[:-2]} {step[k]:.3f} s" for k in ("forward_s", "loss_s", "backward_s", "optimizer_and_other_s")))
    print(f"{step['gflop_per_step']:.0f} Gflop a step: {step['gflop_per_step'] / step['s_per_step_min']:.0f} Gflop/s, "
          f"{step['gflop_per_step'] / step['s_per_step_min'] / step['peak_gflops']:.0%} of the peak measured in the same process")


if __name__ == "__main__":
    main()
