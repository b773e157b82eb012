"""Seconds of dpo-eval's resampling and ratings beside SciPy's and evalica's, on the same data in one run.

    pip install numpy scipy evalica
    python3 benches/statistics/compare.py
"""

import pathlib
import statistics
import subprocess
import tempfile
import time

import evalica
import numpy
import scipy.stats

HERE = pathlib.Path(__file__).parent
BUILD = ["cargo", "run", "--release", "--quiet", "--package", "dpo-eval-statistics-benches", "--", "speed"]


def seconds(work, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def main():
    random = numpy.random.default_rng(1)
    values = random.beta(0.6, 0.4, 805)
    strengths = random.normal(0, 1, 100)
    left = random.integers(0, 100, 1_000_000)
    right = (left + random.integers(1, 100, left.size)) % 100
    chance = 1 / (1 + numpy.exp(strengths[right] - strengths[left]))
    outcome = numpy.where(random.random(left.size) < 0.1, 1, 2 * (random.random(left.size) < chance))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "values.bin").write_bytes(values.astype("<f8").tobytes())
        (folder / "comparisons.bin").write_bytes(numpy.stack([left, right, outcome], 1).astype("<u4").tobytes())
        lines = subprocess.run([*BUILD, str(folder)], check=True, capture_output=True, text=True).stdout.splitlines()
    ours = {name: (float(time), float(number)) for name, time, number in map(str.split, lines)}

    def resample(method):
        made = lambda: scipy.stats.bootstrap((values,), numpy.mean, n_resamples=10_000, method=method, random_state=1)
        taken, result = seconds(made)
        return taken, result.confidence_interval.high - result.confidence_interval.low

    winners = [(evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.X)[o] for o in outcome]
    xs, ys = left.tolist(), right.tolist()
    taken, result = seconds(lambda: evalica.bradley_terry(xs, ys, winners, tolerance=1e-9, limit=10_000), 3)
    theirs = {
        "bootstrap-percentile": resample("percentile"),
        "bootstrap-bca": resample("BCa"),
        "bradley-terry": (taken, float(result.scores[0])),
    }
    print(f"{'median seconds':34} {'ours':>9} {'theirs':>9} {'ratio':>7}  a number of ours, of theirs")
    for name, (time_, number) in ours.items():
        if name in theirs:
            print(f"{name:34} {time_:9.4f} {theirs[name][0]:9.4f} {theirs[name][0] / time_:7.1f}  {number:.6f} {theirs[name][1]:.6f}")
        else:
            print(f"{name:34} {time_:9.4f}")


main()
