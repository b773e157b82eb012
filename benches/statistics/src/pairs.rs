//! What is said of held-out pairs and of seeds: quantiles of margins, AUC, calibration error, temperature; intervals across seeds; variance
//! components.

use dpo_eval_rng::Stream;
use dpo_eval_statistics::bootstrap::Resampling;
use dpo_eval_statistics::calibration::{clustered_temperature, expected_error_of_pairs};
use dpo_eval_statistics::components::{AcrossSeeds, Observation, Source, spreads};
use dpo_eval_statistics::discrimination::{Scored, area};
use dpo_eval_statistics::interval::{Interval, normal_cdf, normal_quantile};
use dpo_eval_statistics::logistic::logistic;
use dpo_eval_statistics::mean::{Clustered, Measured, Range};
use dpo_eval_statistics::quantile::clustered_quantile;
use rayon::prelude::*;

use crate::coverage::{DRAWS, LEVEL, PROMPTS, SEED, row};

fn draws<T: Send>(one: impl Fn(u64) -> T + Send + Sync) -> Vec<T> {
    (0..DRAWS).into_par_iter().map(one).collect()
}

pub fn print() {
    for prompts in PROMPTS {
        quantiles(prompts);
        areas(prompts);
        calibration(prompts);
    }
}

/// Margins 0.3 + prompt + pair, of spread 1 and 2, two pairs a prompt.
fn quantiles(prompts: usize) {
    for p in [0.1, 0.5, 0.9] {
        let truth = 0.3 + 5f64.sqrt() * normal_quantile(p);
        let one = |draw: u64| {
            let mut stream = Stream::of(SEED, "margin quantiles", draw);
            let mut items = Vec::new();
            for prompt in 0..prompts {
                let level = 0.3 + stream.normal();
                items.extend((0..2).map(|_| (prompt, level + 2.0 * stream.normal())));
            }
            clustered_quantile(&Clustered::new(items), p, LEVEL).map(|m| m.interval)
        };
        row(&format!("margin quantile {p}"), "reports", prompts, truth, &draws(one));
    }
}

/// Scores of two chosen and two rejected completions a prompt, which share the prompt's level.
fn areas(prompts: usize) {
    for (name, apart) in [("AUC of weak scores", 0.5), ("AUC of strong scores", 3.0)] {
        // Chosen and rejected are of different prompts, but for a share that vanishes.
        let truth = normal_cdf(apart / 2.0);
        let one = |draw: u64| {
            let mut stream = Stream::of(SEED, name, draw);
            let mut items = Vec::new();
            for cluster in 0..prompts {
                let level = stream.normal();
                for positive in [true, false, true, false] {
                    let score = level + stream.normal() + if positive { apart } else { 0.0 };
                    items.push(Scored { score, positive, cluster });
                }
            }
            area(&items)?.measured(LEVEL).map(|m| m.interval)
        };
        row(name, "reports", prompts, truth, &draws(one));
    }
}

/// Margins of right sides, stated `factor` times too sure: logits of spread √2 that are right as often as they say.
fn margins(name: &str, factor: f64, prompts: usize, draw: u64) -> Clustered {
    let mut stream = Stream::of(SEED, name, draw);
    let mut items = Vec::new();
    for prompt in 0..prompts {
        let level = stream.normal();
        for _ in 0..2 {
            let logit = level + stream.normal();
            items.push((prompt, factor * if stream.bernoulli(logistic(logit)) { logit } else { -logit }));
        }
    }
    Clustered::new(items)
}

/// Σ over ten bins of |E (right − stated)|.
fn true_error(factor: f64) -> f64 {
    let mut gaps = [0.0; 10];
    integrate(2f64.sqrt(), |x, weight| {
        let (right, stated) = (logistic(x.abs()), logistic(factor * x.abs()));
        gaps[((20.0 * (stated - 0.5)) as usize).min(9)] += weight * (right - stated);
    });
    gaps.iter().map(|gap: &f64| gap.abs()).sum()
}

/// Over a normal of this spread, by the trapezoid rule.
pub fn integrate(spread: f64, mut at: impl FnMut(f64, f64)) {
    for i in -3000..=3000 {
        let x = f64::from(i) / 400.0;
        at(spread * x, libm::exp(-x * x / 2.0) / (2.0 * std::f64::consts::PI).sqrt() / 400.0);
    }
}

fn calibration(prompts: usize) {
    for (name, factor) in [("calibrated margins", 1.0), ("margins 1.5 times too sure", 1.5), ("margins 4 times too sure", 4.0)] {
        let one = |draw: u64| clustered_temperature(&margins(name, factor, prompts, draw), LEVEL).map(|m| m.interval);
        row(&format!("temperature of {name}"), "reports", prompts, factor, &draws(one));
        let truth = true_error(factor);
        let one = |draw: u64| {
            let resampling = Resampling { resamples: 599, seed: draw, purpose: "coverage/ece" };
            let found = expected_error_of_pairs(&margins(name, factor, prompts, draw), resampling)?;
            let shifted = |i: Interval| i.within(0.0, 1.0);
            Some([found.interval(LEVEL), shifted(found.bootstrap.percentile(LEVEL)), shifted(found.bootstrap.basic(LEVEL))])
        };
        let found = draws(one);
        for (i, method) in ["reports", "bootstrap percentile", "bootstrap basic"].into_iter().enumerate() {
            let intervals: Vec<Option<Interval>> = found.iter().map(|three| Some((*three)?[i])).collect();
            row(&format!("calibration error of {name}"), method, prompts, truth, &intervals);
        }
    }
}

/// Preferences σ(prompt + seed + prompt by seed + sample), two samples.
pub fn seeds() {
    for (name, spread) in [("seeds that hardly differ", 0.05), ("seeds that differ", 0.4)] {
        for seeds in [2, 3, 5] {
            for prompts in PROMPTS {
                crossed(&format!("{seeds} {name}"), seeds, spread, prompts);
            }
        }
    }
}

const SHIFT: f64 = 0.5;
const OF_PROMPT: f64 = 1.0;
const OF_BOTH: f64 = 0.3;
const OF_SAMPLE: f64 = 0.7;

/// What a seed adds to the logit, and the preferences.
fn draw_crossed(name: &str, seeds: usize, spread: f64, prompts: usize, draw: u64) -> (Vec<f64>, Vec<Observation>) {
    let mut stream = Stream::of(SEED, name, draw);
    let of_seed: Vec<f64> = (0..seeds).map(|_| spread * stream.normal()).collect();
    let mut items = Vec::new();
    for prompt in 0..prompts {
        let level = SHIFT + OF_PROMPT * stream.normal();
        for (seed, of_seed) in of_seed.iter().enumerate() {
            let both = level + of_seed + OF_BOTH * stream.normal();
            for sample in 0..2 {
                let value = logistic(both + OF_SAMPLE * stream.normal());
                items.push(Observation { prompt, seed, sample, judge: 0, value });
            }
        }
    }
    (of_seed, items)
}

/// E σ(x + `spread` Z), tabulated.
struct Smoothed(Vec<f64>);

impl Smoothed {
    const STEP: f64 = 0.01;
    const END: f64 = 12.0;

    fn new(spread: f64) -> Self {
        let steps = (2.0 * Self::END / Self::STEP) as i32;
        Self((0..=steps).map(|i| expected(f64::from(i) * Self::STEP - Self::END, spread)).collect())
    }

    fn at(&self, x: f64) -> f64 {
        let place = ((x + Self::END) / Self::STEP).clamp(0.0, (self.0.len() - 2) as f64);
        let (below, share) = (place as usize, place.fract());
        self.0[below] + share * (self.0[below + 1] - self.0[below])
    }
}

/// Covariance over a normal of this spread of two functions.
fn covariance(spread: f64, a: impl Fn(f64) -> f64, b: impl Fn(f64) -> f64) -> f64 {
    let [mut of_a, mut of_b, mut of_both] = [0.0; 3];
    for i in -120..=120 {
        let x = f64::from(i) / 20.0;
        let weight = libm::exp(-x * x / 2.0) / (2.0 * std::f64::consts::PI).sqrt() / 20.0;
        let (a, b) = (a(spread * x), b(spread * x));
        of_a += weight * a;
        of_b += weight * b;
        of_both += weight * a * b;
    }
    of_both - of_a * of_b
}

/// Components under given seeds.
struct Given {
    of_prompt: Smoothed,
    of_cell: Smoothed,
}

impl Given {
    fn new() -> Self {
        Self { of_prompt: Smoothed::new(OF_BOTH.hypot(OF_SAMPLE)), of_cell: Smoothed::new(OF_SAMPLE) }
    }

    /// By prompt, prompt by seed, sample: the covariance of a prompt's expectations under two of the seeds; what is left of the cells'
    /// variance under one; the variance within cells.
    fn components(&self, seeds: &[f64]) -> [f64; 3] {
        let (cell, all) = (OF_PROMPT.hypot(OF_BOTH), OF_PROMPT.hypot(OF_BOTH).hypot(OF_SAMPLE));
        let count = seeds.len() as f64;
        let shared =
            |a: f64, b: f64| covariance(OF_PROMPT, |x| self.of_prompt.at(SHIFT + a + x), |x| self.of_prompt.at(SHIFT + b + x));
        let pairs = seeds.iter().enumerate().flat_map(|(i, a)| seeds[..i].iter().map(move |b| (*a, *b)));
        let prompt = pairs.map(|(a, b)| shared(a, b)).sum::<f64>() / (count * (count - 1.0) / 2.0);
        let of_seed = |s: &f64| {
            let of_cell = |x: f64| self.of_cell.at(SHIFT + s + x);
            let whole = |x: f64| logistic(SHIFT + s + x);
            (covariance(cell, of_cell, of_cell), covariance(all, whole, whole))
        };
        let (between, total) = seeds.iter().map(of_seed).fold((0.0, 0.0), |(b, t), (c, a)| (b + c / count, t + a / count));
        [prompt, between - prompt, total - between]
    }
}

fn crossed(name: &str, seeds: usize, spread: f64, prompts: usize) {
    let given = Given::new();
    let found = draws(|draw| {
        let (of_seed, items) = draw_crossed(name, seeds, spread, prompts, draw);
        let across = AcrossSeeds::new(&items).and_then(|a| a.measured(Range::UNIT, LEVEL)).map(|m| m.interval);
        (across, spreads(&items, 0.25, LEVEL), given.components(&of_seed))
    });
    let all = OF_PROMPT.hypot(spread).hypot(OF_BOTH).hypot(OF_SAMPLE);
    let across: Vec<Option<Interval>> = found.iter().map(|(across, ..)| *across).collect();
    row(&format!("win rate across {name}"), "reports", prompts, expected(SHIFT, all), &across);
    let of = |(_, spreads, _): &Crossed, source: &str| spreads.iter().find(|(s, _)| s.name() == source).map(|(_, m)| m.interval);
    for (i, source) in ["prompt", "prompt by seed", "sample"].into_iter().enumerate() {
        // As if the truth were 0 always.
        let apart = |one: &Crossed| {
            let (interval, truth) = (of(one, source)?, one.2[i]);
            Some(Interval { lower: interval.lower - truth, upper: interval.upper - truth })
        };
        let intervals: Vec<Option<Interval>> = found.iter().map(apart).collect();
        row(&format!("variance by {source} under {name}"), "reports", prompts, 0.0, &intervals);
    }
    // The variance of what is expected, given the source, over all seeds.
    let given = |own: f64| {
        let rest = (all * all - own * own).sqrt();
        let (mut mean, mut square) = (0.0, 0.0);
        integrate(own, |x, weight| {
            let e = expected(SHIFT + x, rest);
            mean += weight * e;
            square += weight * e * e;
        });
        square - mean * mean
    };
    let (prompt, seed) = (given(OF_PROMPT), given(spread));
    let cell = given(OF_PROMPT.hypot(spread).hypot(OF_BOTH));
    let truths = [("prompt", prompt), ("seed", seed), ("prompt by seed", cell - prompt - seed), ("sample", given(all) - cell)];
    for (source, truth) in truths {
        let intervals: Vec<Option<Interval>> = found.iter().map(|one| of(one, source)).collect();
        row(&format!("variance by {source} of {name}"), "reports", prompts, truth, &intervals);
    }
}

type Crossed = (Option<Interval>, Vec<(Source, Measured)>, [f64; 3]);

fn expected(shift: f64, spread: f64) -> f64 {
    let mut sum = 0.0;
    if spread < 1e-9 {
        return logistic(shift);
    }
    integrate(spread, |x, weight| sum += weight * logistic(shift + x));
    sum
}
