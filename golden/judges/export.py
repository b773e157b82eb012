"""Writes small judges with random weights as other people's tools export them, and what they score by PyTorch.

    python export.py            # torch 2.11.0, transformers 5.23.0, onnx 1.23.2, onnxruntime 1.31.1, tokenizers 0.23.3

Each folder holds what a user would bring: model.onnx, tokenizer.json, and the tokenizer_config.json and config.json that transformers saved.
`variants/` holds the BERT again: weights in a file of their own, int8 (dynamic quantisation), half precision, int32 inputs, probabilities for
logits. expected.json holds the texts and PyTorch's answers, each text by itself; of int8 and half precision also onnxruntime's. Every file passes
onnx.checker.
"""

import json
import pathlib
import shutil
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import tokenizers
import torch
import transformers
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DebertaV2Model,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
CORPUS = [f"The lamp number {i % 7} is bright, but the kettle is {i % 5}. Say why you like it or not." for i in range(200)]
LONG = "Say why the kettle is dull and the lamp is not, " * 3
TEXTS = [
    ("Say why.", "The lamp is bright.", "The kettle is dull, like it or not."),
    ("Say it.", "Not bright.", "The lamp number 3 is bright, but the kettle is 4."),
    ("The lamp?", "I like it.", "I like it not."),
    (LONG, "The lamp is bright.", "The kettle."),
    ("Why?", LONG, "The kettle is bright."),
]


def wordpiece():
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    raw.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    ids = {name: raw.token_to_id(name) for name in special}
    raw.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=48, **names)


def roberta_bpe():
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted({c for text in CORPUS + [LONG] for c in text.replace(" ", "Ġ")} | set("?!"))
    trainer = trainers.BpeTrainer(vocab_size=140, special_tokens=special, initial_alphabet=letters, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=40, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def unigram(extra=()):
    raw = tokenizers.Tokenizer(models.Unigram())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *extra]
    trainer = trainers.UnigramTrainer(vocab_size=130, special_tokens=special, unk_token="[UNK]", show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    template = dict(single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    raw.post_processor = processors.TemplateProcessing(**template, special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    names = dict(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=int(1e30), additional_special_tokens=list(extra), **names
    )


def llama_bpe():
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = sorted({c for text in CORPUS + [LONG] for c in text.replace(" ", "Ġ")} | set("?!"))
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=special, initial_alphabet=letters, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=56, truncation_side="left", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


class PairRM(torch.nn.Module):
    """LLM-Blender's ranker over a DeBERTa: the states at the three prefix tokens, a head over (source, candidate), first minus second."""

    def __init__(self, config, prefixes):
        super().__init__()
        self.encoder, self.prefixes, width = DebertaV2Model(config), prefixes, config.hidden_size
        self.head = torch.nn.Sequential(
            torch.nn.Linear(2 * width, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)
        )

    def forward(self, input_ids, attention_mask):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        at = lambda prefix: (states * (input_ids == prefix).unsqueeze(-1).to(states.dtype)).sum(1)
        source, first, second = (at(prefix) for prefix in self.prefixes)
        score = lambda candidate: self.head(torch.cat([source, candidate], -1))
        return (score(first) - score(second)).mean(-1)


class Logits(torch.nn.Module):
    """A classifier that takes its inputs in order and gives its logits alone."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs))).logits


def randomised(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(1 + 0.1 * noise if "norm" in name.lower() and name.endswith("weight") else 0.3 * noise)
    return model.eval()


def stripped(model):
    """Without what only developers read: it would be half of such a small file."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    return model


def export(module, names, path):
    ids = torch.tensor([[4, 5, 6, 7, 8, 9], [5, 6, 7, 8, 9, 4]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    sizes = {name: {0: "batch", 1: "sequence"} for name in names}
    args = tuple(inputs[name] for name in names)
    torch.onnx.export(
        module, args, path, dynamo=False, input_names=names, output_names=["logits"], dynamic_axes=sizes | {"logits": {0: "batch"}}, opset_version=17
    )
    model = stripped(onnx.load(path))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def agree(path, encodings, outputs):
    """The export is what PyTorch says, or this golden file would blame the wrong side."""
    for ours, theirs in zip(runtime_answers(path, encodings), outputs):
        assert np.allclose(ours, theirs, atol=1e-5), (path, ours, theirs)


def answers(module, names, encodings):
    """PyTorch's raw outputs, each text alone. The export puts a module back into the mode it was in: in training it would drop out."""
    assert not module.training
    with torch.no_grad():
        return [module(*(torch.tensor([e[n]]) for n in names)).double().reshape(-1).tolist() for e in encodings]


def runtime_answers(path, encodings):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = lambda e: {i.name: np.array([e[i.name]], np.int64) for i in session.get_inputs()}
    return [session.run(None, given(e))[0].astype(np.float64).reshape(-1).tolist() for e in encodings]


def encoded(tokenizer, texts, length, pair=None):
    said = tokenizer(texts, pair, truncation="longest_first", max_length=length, return_token_type_ids=True, return_attention_mask=True)
    return [{key: said[key][i] for key in ("input_ids", "attention_mask", "token_type_ids")} for i in range(len(texts))]


def saved(folder, tokenizer, config):
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(pathlib.Path(scratch) / name, folder / name)
    kept = ("model_type", "architectures", "id2label", "label2id", "pad_token_id", "vocab_size", "max_position_embeddings")
    text = json.loads(config.to_json_string(use_diff=False))
    (folder / "config.json").write_text(json.dumps({k: text[k] for k in kept if text.get(k) is not None}, indent=1) + "\n")


def both_orders(texts):
    return [order for prompt, a, b in texts for order in ((prompt, a, b), (prompt, b, a))]


def cross_encoder(name, classifier, config, tokenizer, seed, names, length):
    """A pairwise judge over a text pair: prompt and first completion, prompt and second."""
    model = randomised(classifier(config), seed)
    saved(HERE / name, tokenizer, config)
    questions = both_orders(TEXTS)
    encodings = encoded(tokenizer, [f"{p} {a}" for p, a, _ in questions], length, [f"{p} {b}" for p, _, b in questions])
    module = Logits(model, names).eval()
    export(module, names, HERE / name / "model.onnx")
    outputs = answers(module, names, encodings)
    agree(HERE / name / "model.onnx", encodings, outputs)
    return {"questions": questions, "ids": [e["input_ids"] for e in encodings], "outputs": outputs}, encodings


def reward_model(name, classifier, config, tokenizer, seed, length):
    model, names = randomised(classifier(config), seed), ["input_ids", "attention_mask"]
    saved(HERE / name, tokenizer, config)
    questions = [(p, c) for p, a, b in TEXTS for c in (a, b)]
    encodings = encoded(tokenizer, [f"{p} {c}" for p, c in questions], length)
    module = Logits(model, names).eval()
    export(module, names, HERE / name / "model.onnx")
    outputs = answers(module, names, encodings)
    agree(HERE / name / "model.onnx", encodings, outputs)
    return {"questions": questions, "ids": [e["input_ids"] for e in encodings], "outputs": outputs}


def pairrm():
    prefixes = ["<|source|>", "<|candidate1|>", "<|candidate2|>"]
    tokenizer = unigram(prefixes)
    config = deberta_config(len(tokenizer), 2)
    model = randomised(PairRM(config, [tokenizer.convert_tokens_to_ids(p) for p in prefixes]), 5)
    saved(HERE / "pairrm", tokenizer, config)
    questions, encodings, source_max, candidate_max = both_orders(TEXTS), [], 20, 12
    for texts in questions:
        source = tokenizer.encode(prefixes[0] + texts[0], max_length=source_max, truncation=True)
        share = (source_max + 2 * candidate_max - len(source)) // 2
        sides = [tokenizer.encode(p + t, max_length=share, truncation=True) for p, t in zip(prefixes[1:], texts[1:])]
        ids = source + sides[0] + sides[1]
        encodings.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
    names = ["input_ids", "attention_mask"]
    export(model, names, HERE / "pairrm" / "model.onnx")
    outputs = answers(model, names, encodings)
    agree(HERE / "pairrm" / "model.onnx", encodings, outputs)
    return {"questions": questions, "ids": [e["input_ids"] for e in encodings], "outputs": outputs}


def deberta_config(vocabulary, labels):
    return DebertaV2Config(
        vocab_size=vocabulary, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, type_vocab_size=0, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, pad_token_id=0, num_labels=labels,
    )  # fmt: skip


def variants(encodings):
    """The BERT in other forms of file."""
    folder, plain = HERE / "variants", HERE / "bert" / "model.onnx"
    folder.mkdir(exist_ok=True)
    external = onnx.load(plain)
    (folder / "external.onnx.data").unlink(missing_ok=True)
    onnx.save(external, folder / "external.onnx", save_as_external_data=True, location="external.onnx.data", size_threshold=256)
    onnx.checker.check_model(str(folder / "external.onnx"))

    # Reduced range: without VNNI, products of full-range bytes saturate, and CPUs would differ.
    quantize_dynamic(plain, folder / "int8.onnx", weight_type=QuantType.QInt8, reduce_range=True)
    onnx.checker.check_model(str(folder / "int8.onnx"))

    half = stripped(convert_float_to_float16(onnx.load(plain), keep_io_types=False))
    onnx.checker.check_model(half, full_check=True)
    onnx.save(half, folder / "half.onnx")

    narrow = onnx.load(plain)
    for value in narrow.graph.input:
        value.type.tensor_type.elem_type = TensorProto.INT32
        wide = value.name + "_wide"
        for node in narrow.graph.node:
            node.input[:] = [wide if name == value.name else name for name in node.input]
        narrow.graph.node.insert(0, helper.make_node("Cast", [value.name], [wide], to=TensorProto.INT64))
    onnx.checker.check_model(narrow, full_check=True)
    onnx.save(narrow, folder / "int32.onnx")

    likely = onnx.load(plain)
    for node in likely.graph.node:
        node.output[:] = ["raw" if name == "logits" else name for name in node.output]
    likely.graph.node.append(helper.make_node("Softmax", ["raw"], ["probabilities"], axis=-1))
    likely.graph.output[0].name = "probabilities"
    onnx.checker.check_model(likely, full_check=True)
    onnx.save(likely, folder / "probabilities.onnx")
    return {
        "int8": {"runtime": runtime_answers(folder / "int8.onnx", encodings)},
        "half": {"runtime": runtime_answers(folder / "half.onnx", encodings)},
    }


def main():
    torch.manual_seed(0)
    expected, words = {}, wordpiece()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, id2label={0: "A", 1: "B", 2: "tie"}, **small)
    expected["bert"], encodings = cross_encoder("bert", BertForSequenceClassification, config, words, 1, names, 48)
    expected |= variants(encodings)
    pieces = unigram()
    config = deberta_config(len(pieces), 2)
    expected["deberta"], _ = cross_encoder("deberta", DebertaV2ForSequenceClassification, config, pieces, 2, names[:2], 64)
    bytes_ = roberta_bpe()
    config = RobertaConfig(vocab_size=len(bytes_), max_position_embeddings=50, pad_token_id=1, type_vocab_size=1, num_labels=1, **small)
    expected["roberta"] = reward_model("roberta", RobertaForSequenceClassification, config, bytes_, 3, 40)
    bytes_ = llama_bpe()
    config = LlamaConfig(vocab_size=len(bytes_), max_position_embeddings=64, num_key_value_heads=1, pad_token_id=3, num_labels=1, **small)
    expected["llama"] = reward_model("llama", LlamaForSequenceClassification, config, bytes_, 4, 56)
    expected["pairrm"] = pairrm()
    expected["versions"] = {m.__name__: m.__version__ for m in (torch, transformers, onnx, onnxruntime, tokenizers)}
    lines = [f'"{name}": {json.dumps(value)}' for name, value in expected.items()]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
