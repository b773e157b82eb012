"""What statsmodels and SciPy say of data made here: recorded into peers.json, which the unit tests of src/statistics read.

    python3 golden/statistics/record.py > golden/statistics/peers.json

Tests hold closed forms to 1e-9 and iterative ones to 1e-6.
"""

import json
import sys

import numpy
import pandas
import scipy
import scipy.optimize
import statsmodels
import statsmodels.api as sm
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

random = numpy.random.default_rng(20261129)


def rows_of(frame):
    return [[int(r.prompt), int(r.seed), int(r.sample), int(r.judge), float(r.value)] for r in frame.itertuples()]


def crossed():
    """Prompts × seeds with samples inside, balanced: mean squares of the analysis of variance give the components."""
    prompts, seeds, samples = 12, 4, 3
    p, s = random.normal(0, 1, prompts), random.normal(0, 0.5, seeds)
    ps = random.normal(0, 0.4, (prompts, seeds))
    rows = [
        (i, j, k, 0, 0.5 + p[i] + s[j] + ps[i, j] + random.normal(0, 0.7))
        for i in range(prompts) for j in range(seeds) for k in range(samples)
    ]
    frame = pandas.DataFrame(rows, columns=["prompt", "seed", "sample", "judge", "value"])
    table = anova_lm(ols("value ~ C(prompt) * C(seed)", frame).fit())
    square = lambda name: table.loc[name, "mean_sq"]
    both, residual = square("C(prompt):C(seed)"), square("Residual")
    groups = frame[["prompt", "seed"]].to_numpy()
    mean = sm.OLS(frame.value, numpy.ones(len(frame))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return {
        "rows": rows_of(frame),
        "sample": residual,
        "prompt_by_seed": (both - residual) / samples,
        "seed": (square("C(seed)") - both) / (prompts * samples),
        "prompt": (square("C(prompt)") - both) / (seeds * samples),
        "mean": float(mean.params.iloc[0]),
        "two_way_se": float(mean.bse.iloc[0]),
    }


def judged():
    """Prompts × judges, one value each."""
    prompts, judges = 15, 3
    p, j = random.normal(0, 1, prompts), random.normal(0, 0.3, judges)
    rows = [(i, 0, 0, k, p[i] + j[k] + random.normal(0, 0.5)) for i in range(prompts) for k in range(judges)]
    frame = pandas.DataFrame(rows, columns=["prompt", "seed", "sample", "judge", "value"])
    table = anova_lm(ols("value ~ C(prompt) + C(judge)", frame).fit())
    judge, residual = table.loc["C(judge)", "mean_sq"], table.loc["Residual", "mean_sq"]
    return {"rows": rows_of(frame), "judge": (judge - residual) / prompts, "rest": residual}


def bradley_terry():
    """Soft preferences of four players over 60 prompts, two comparisons each: the sandwich of a fractional logit."""
    truth, rows = numpy.array([0.7, 0.2, -0.3, -0.6]), []
    for prompt in range(60):
        level = random.normal(0, 1)
        for _ in range(2):
            left, right = random.choice(4, 2, replace=False)
            outcome = 1 / (1 + numpy.exp(-(truth[left] - truth[right] + level * (1 if left < right else -1))))
            rows.append([int(left), int(right), float(outcome), prompt])
    design = numpy.zeros((len(rows), 3))
    for i, (left, right, _, _) in enumerate(rows):
        if left > 0:
            design[i, left - 1] += 1
        if right > 0:
            design[i, right - 1] -= 1
    groups = numpy.array([row[3] for row in rows])
    model = sm.GLM([row[2] for row in rows], design, family=sm.families.Binomial())
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}, tol=1e-14, maxiter=200)
    factor = len(set(groups)) / (len(set(groups)) - 1)
    return {
        "rows": rows,
        "above_first": fit.params.tolist(),
        "standard_error_above_first": numpy.sqrt(numpy.diag(fit.cov_params()) * factor).tolist(),
    }


def temperature():
    logits = random.normal(0, 3, 40)
    outcomes = (random.random(40) < 1 / (1 + numpy.exp(-0.4 * logits))).astype(float)
    loss = lambda t: numpy.mean(numpy.logaddexp(0, logits / t) - outcomes * logits / t)
    best = scipy.optimize.minimize_scalar(loss, bounds=(0.05, 50), method="bounded", options={"xatol": 1e-12})
    return {"logits": logits.tolist(), "outcomes": outcomes.tolist(), "temperature": float(best.x), "loss": float(best.fun)}


record = {
    "made_with": {
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "statsmodels": statsmodels.__version__,
    },
    "components": crossed(),
    "judges": judged(),
    "bradley_terry": bradley_terry(),
    "temperature": temperature(),
}
print(json.dumps(record))
