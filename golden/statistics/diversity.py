"""Records golden/statistics/diversity.json: self-BLEU by NLTK, distances between samples by SciPy.

Run from the repository root: python golden/statistics/diversity.py
"""

import json
import random
import sys

import nltk
import scipy
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from scipy.stats import ks_2samp, wasserstein_distance

TEXTS = [
    ["the room was clean and the staff were kind", "the room was clean but the staff were rude"],
    ["good good good good good", "good good", "bad"],
    ["one", "two"],
    ["a b c d e f g", "a b c d e f g", "g f e d c b a"],
    ["It is great, and the price of the kettle is fair.", "It is great.", "The price of the kettle is fair, and it is great.", "It is bad."],
]


def self_bleu(texts):
    smooth = SmoothingFunction(epsilon=0.1).method1
    words = [text.split() for text in texts]
    scores = [sentence_bleu(words[:i] + words[i + 1 :], words[i], smoothing_function=smooth) for i in range(len(words))]
    return sum(scores) / len(scores)


def distances():
    draw = random.Random(7)
    for n, m, shift in [(5, 5, 0), (20, 7, 3), (30, 30, 10)]:
        a = [float(draw.randint(1, 30)) for _ in range(n)]
        b = [float(draw.randint(1, 30) + shift) for _ in range(m)]
        yield {"a": a, "b": b, "ks": float(ks_2samp(a, b).statistic), "wasserstein": float(wasserstein_distance(a, b))}


out = {
    "versions": {"python": sys.version.split()[0], "nltk": nltk.__version__, "scipy": scipy.__version__},
    "self_bleu": [{"texts": texts, "value": self_bleu(texts)} for texts in TEXTS],
    "distances": list(distances()),
}
with open("golden/statistics/diversity.json", "w") as file:
    json.dump(out, file, indent=1)
    file.write("\n")
