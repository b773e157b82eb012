//! What is said of judges: agreement beyond chance, length bias, and the win rate at equal length.

use dpo_eval_rng::Stream;
use dpo_eval_statistics::agreement::clustered::{self, Counts, alpha, kappa};
use dpo_eval_statistics::bias::{Longer, length_bias};
use dpo_eval_statistics::bootstrap::{Bootstrap, Resampling};
use dpo_eval_statistics::interval::{Interval, normal_cdf, t};
use dpo_eval_statistics::jackknife::standard_error;
use dpo_eval_statistics::krippendorff::{Metric, clustered_alpha};
use dpo_eval_statistics::length_control::{Data, Item, Recipe};
use dpo_eval_statistics::logistic::logistic;
use dpo_eval_statistics::mean::Range;
use dpo_eval_statistics::prediction_powered::{Predicted, Tuning, corrected_mean};
use rayon::prelude::*;

use crate::coverage::{DRAWS, LEVEL, PROMPTS, SEED, row};
use crate::pairs::integrate;

type Methods = Vec<(&'static str, Option<Interval>)>;

/// `candidates`: other methods stand beside what the reports use.
pub fn print(candidates: bool) {
    for prompts in PROMPTS {
        for world in AGREEMENTS {
            agreement(world, prompts, candidates);
        }
        for (name, shift) in [("a judge", 1.0), ("a careful judge", 3.0)] {
            of_lengths(name, shift, prompts, candidates);
        }
        of_panels(prompts);
        for (name, likes) in [("an even judge", 0.0), ("a judge that likes the policy", 1.0)] {
            corrected(name, likes, prompts);
        }
    }
}

/// The same of win rates at equal length: with 800 prompts, a million and a half fits.
pub fn at_equal_lengths(candidates: bool) {
    for prompts in PROMPTS {
        for (name, lean) in [("even policies", 0.0), ("a better policy", 1.0)] {
            at_equal_length(name, lean, prompts, candidates);
        }
    }
}

/// Runs the draws; a row for each method.
fn rows(what: &str, prompts: usize, truth: f64, one: impl Fn(u64) -> Methods + Send + Sync) {
    let found: Vec<Methods> = (0..DRAWS).into_par_iter().map(one).collect();
    for (i, (method, _)) in found[0].iter().enumerate() {
        row(what, method, prompts, truth, &found.iter().map(|methods| methods[i].1).collect::<Vec<_>>());
    }
}

/// Verdicts of a judge and of labels on two items a prompt, from normal values that share the prompt's.
#[derive(Clone, Copy)]
struct Verdicts {
    name: &'static str,
    /// Mean of both, in the direction of the first side.
    lean: f64,
    prompt: f64,
    /// Of what is left of each: shared, the judge's own, the labels' own.
    parts: [f64; 3],
    /// Nearer to 0 is a tie: the judge's, the labels'.
    ties: [f64; 2],
    /// Whether labels say which side is better, each pair counted in both directions.
    directed: bool,
}

const AGREEMENTS: [Verdicts; 4] = [
    // The labels' value is always positive: the first side is the better one.
    Verdicts { name: "a judge of pairs", lean: 1.0, prompt: 1.0, parts: [0.0, 1.5, 0.0], ties: [0.1, 0.0], directed: true },
    Verdicts {
        name: "a careful judge of pairs",
        lean: 3.0,
        prompt: 1.0,
        parts: [0.0, 1.5, 0.0],
        ties: [0.0, 0.0],
        directed: true,
    },
    Verdicts { name: "a judge with labels", lean: 0.5, prompt: 1.0, parts: [0.8, 0.6, 0.6], ties: [0.02, 0.3], directed: false },
    Verdicts {
        name: "a judge with lopsided labels",
        lean: 2.0,
        prompt: 1.0,
        parts: [0.8, 0.6, 0.6],
        ties: [0.02, 0.1],
        directed: false,
    },
];

fn side(value: f64, tie: f64) -> usize {
    if value.abs() < tie { 1 } else { 2 * usize::from(value > 0.0) }
}

impl Verdicts {
    fn draw(&self, prompts: usize, draw: u64) -> Vec<Counts> {
        let mut stream = Stream::of(SEED, self.name, draw);
        let [shared, judge, labels] = self.parts;
        let mut one = || {
            let (mut counts, level) = ([0.0; 9], self.lean + self.prompt * stream.normal());
            for _ in 0..2 {
                let [a, b, c] = [stream.normal(), stream.normal(), stream.normal()];
                let said = side(level + shared * a + judge * b, self.ties[0]);
                if self.directed {
                    counts[3 * said + 2] += 1.0;
                    counts[3 * (2 - said)] += 1.0;
                } else {
                    counts[3 * said + side(level + shared * a + labels * c, self.ties[1])] += 1.0;
                }
            }
            counts
        };
        (0..prompts).map(|_| one()).collect()
    }

    /// Shares over all prompts, many enough that α's correction for their number is nothing.
    fn truth(&self) -> Counts {
        let mut counts = [0.0; 9];
        let [shared, judge, labels] = self.parts;
        let limits = |tie: f64| [(f64::NEG_INFINITY, -tie), (-tie, tie), (tie, f64::INFINITY)];
        let common = self.prompt.hypot(shared);
        // Given what both share they are independent.
        integrate(common, |x, weight| {
            let within = |(from, to): (f64, f64), spread: f64| {
                let at = |limit: f64| normal_cdf((limit - self.lean - x) / spread);
                at(to) - at(from)
            };
            for (i, of_judge) in limits(self.ties[0]).into_iter().enumerate() {
                let said = weight * within(of_judge, judge);
                if self.directed {
                    counts[3 * i + 2] += said;
                    counts[3 * (2 - i)] += said;
                } else {
                    for (j, of_labels) in limits(self.ties[1]).into_iter().enumerate() {
                        counts[3 * i + j] += said * within(of_labels, labels);
                    }
                }
            }
        });
        counts.map(|share| 1e12 * share)
    }
}

fn agreement(world: Verdicts, prompts: usize, candidates: bool) {
    for (name, coefficient) in [("kappa", kappa as fn(&Counts) -> f64), ("alpha", alpha)] {
        rows(&format!("{name} of {}", world.name), prompts, coefficient(&world.truth()), |draw| {
            let clusters = world.draw(prompts, draw);
            let found = clustered::measured(&clusters, coefficient, 2 * prompts, LEVEL).map(|m| m.interval);
            let mut methods = vec![("reports", found)];
            if candidates && prompts <= 100 {
                let of = |drawn: &[usize]| {
                    let sum: Counts = std::array::from_fn(|i| drawn.iter().map(|&c| clusters[c][i]).sum());
                    coefficient(&sum)
                };
                methods.extend(others(prompts, Range { lower: -1.0, upper: 1.0 }, of));
            }
            methods
        });
    }
}

/// Percentile, BCa and jackknife t of a statistic of clusters.
fn others(clusters: usize, range: Range, statistic: impl Fn(&[usize]) -> f64 + Sync) -> Methods {
    let all: Vec<usize> = (0..clusters).collect();
    let value = statistic(&all);
    let resampling = Resampling { resamples: 599, seed: SEED, purpose: "coverage/judges" };
    let replicates = resampling.replicates(clusters, |drawn| {
        let drawn: Vec<usize> = drawn.iter().map(|unit| *unit as usize).collect();
        statistic(&drawn)
    });
    let without = |c: usize| statistic(&all.iter().copied().filter(|other| *other != c).collect::<Vec<_>>());
    let left_out: Vec<f64> = (0..clusters).map(without).collect();
    let bootstrap = Bootstrap::new(value, replicates);
    let percentile = bootstrap.as_ref().map(|b| b.percentile(LEVEL));
    let bca = bootstrap.as_ref().and_then(|b| b.bca(&left_out, LEVEL)).or(percentile);
    let half = t(LEVEL, clusters - 1) * standard_error(&left_out);
    let around = Interval::around(value, half).within(range.lower, range.upper);
    vec![("bootstrap percentile", percentile), ("bootstrap BCa", bca), ("jackknife t", Some(around))]
}

/// Three judges of two items a prompt, whose values share a correlation of 0.8; α by pairs of them.
fn of_panels(prompts: usize) {
    let spread = 1f64.hypot(0.8);
    let mut agree = 0.0;
    let mut first = 0.0;
    integrate(spread, |x, weight| {
        let wins = normal_cdf((0.3 + x) / 0.6);
        first += weight * wins;
        agree += weight * (wins * wins + (1.0 - wins) * (1.0 - wins));
    });
    let truth = 1.0 - (1.0 - agree) / (2.0 * first * (1.0 - first));
    rows("alpha of a panel of three", prompts, truth, |draw| {
        let mut stream = Stream::of(SEED, "panel", draw);
        let mut prompt = || {
            let level = 0.3 + stream.normal();
            let mut item = || {
                let shared = level + 0.8 * stream.normal();
                (0..3).map(|_| f64::from(u8::from(shared + 0.6 * stream.normal() > 0.0))).collect()
            };
            vec![item(), item()]
        };
        let clusters: Vec<Vec<Vec<f64>>> = (0..prompts).map(|_| prompt()).collect();
        vec![("reports", clustered_alpha(&clusters, Metric::Nominal, LEVEL).map(|m| m.interval))]
    });
}

/// Win rates by a judge, corrected by gold on every fourth prompt: gold is a verdict, the judge a soft one that sees it through noise.
fn corrected(name: &str, likes: f64, prompts: usize) {
    let truth = normal_cdf(0.3 / 1f64.hypot(0.8));
    rows(&format!("win rate of {name} corrected by labels"), prompts, truth, |draw| {
        let mut stream = Stream::of(SEED, name, draw);
        let mut items = Vec::new();
        for cluster in 0..prompts {
            let level = 0.3 + stream.normal();
            for _ in 0..2 {
                let value = level + 0.8 * stream.normal();
                let judge = logistic(2.0 * (value + 0.7 * stream.normal()) + likes);
                let label = cluster.is_multiple_of(4).then_some(f64::from(u8::from(value > 0.0)));
                items.push(Predicted { judge, label, cluster });
            }
        }
        let found = corrected_mean(&items, Tuning::Best).and_then(|corrected| corrected.interval_of_few(LEVEL));
        vec![("reports", found.map(|interval| interval.within(0.0, 1.0)))]
    });
}

/// A judge of pairs that likes what is longer by half a logit: the longer side is the better one in six of ten.
fn of_lengths(name: &str, shift: f64, prompts: usize, candidates: bool) {
    const LIKES: f64 = 0.5;
    let spread = 1f64.hypot(1.5);
    let [better, worse] = [shift + LIKES, LIKES - shift].map(|mean| normal_cdf(mean / spread));
    rows(&format!("length bias of {name}"), prompts, (better + worse) / 2.0 - 0.5, |draw| {
        let mut stream = Stream::of(SEED, name, draw);
        let mut one = || {
            let (mut longer, level) = (Longer::default(), stream.normal());
            for _ in 0..2 {
                let is_better = stream.bernoulli(0.6);
                let toward_better = shift + level + 1.5 * stream.normal();
                let value = if is_better { toward_better } else { -toward_better } + LIKES;
                let sums = if is_better { &mut longer.better } else { &mut longer.worse };
                *sums = [sums[0] + f64::from(u8::from(value > 0.0)), sums[1] + 1.0];
            }
            longer
        };
        let clusters: Vec<Longer> = (0..prompts).map(|_| one()).collect();
        let mut methods = vec![("reports", length_bias(&clusters, LEVEL).map(|m| m.interval))];
        if candidates && prompts <= 100 {
            let of = |drawn: &[usize]| {
                let mean = |of: fn(&Longer) -> [f64; 2]| {
                    let [sum, n] = drawn.iter().map(|&c| of(&clusters[c])).fold([0.0; 2], |[s, n], [a, b]| [s + a, n + b]);
                    if n > 0.0 { sum / n } else { 0.5 }
                };
                (mean(|c| c.better) + mean(|c| c.worse)) / 2.0 - 0.5
            };
            methods.extend(others(prompts, Range::HALVES, of));
        }
        methods
    });
}

/// Preferences σ(lean + 1.2 tanh(z) + prompt + sample) of two samples, z the standardised difference in length, which leans too.
fn judged(name: &str, lean: f64, prompts: usize, draw: u64) -> Vec<Item> {
    let mut stream = Stream::of(SEED, name, draw);
    let mut items = Vec::new();
    for prompt in 0..prompts {
        let level = lean + stream.normal();
        for _ in 0..2 {
            let longer = 0.4 + stream.normal();
            let preference = logistic(level + 1.2 * libm::tanh(longer) + 0.7 * stream.normal());
            items.push(Item { prompt, preference: Some(preference), differences: vec![100.0 * longer], difficulty: 0.0 });
        }
    }
    items
}

/// What a fit of very many prompts gives is the truth.
fn at_equal_length(name: &str, lean: f64, prompts: usize, candidates: bool) {
    const RIDGE: Recipe = Recipe::Ridge { saturating: true };
    let many = judged("truth", lean, 200_000, 0);
    let fit =
        |items: &[Item], prompts| Data { items, gamed: &[], prompts }.fit(RIDGE).expect("penalties keep the optimum finite");
    let truth = fit(&many, 200_000).win_rate;
    rows(&format!("win rate at equal length of {name}"), prompts, truth, |draw| {
        let items = judged(name, lean, prompts, draw);
        let data = Data { items: &items, gamed: &[], prompts };
        let mut methods = vec![("reports", data.measured(RIDGE, LEVEL).map(|m| m.interval))];
        if candidates && prompts <= 100 {
            let fit = data.fit(RIDGE).expect("fitted above");
            let resampling = Resampling { resamples: 400, seed: draw, purpose: "coverage/length" };
            let bootstrap =
                data.resampled(RIDGE, &fit.coefficients, resampling).ok().and_then(|r| Bootstrap::new(fit.win_rate, r));
            let left_out = data.left_out(RIDGE, &fit.coefficients).expect("fitted above");
            methods.push(("bootstrap percentile", bootstrap.as_ref().map(|b| b.percentile(LEVEL))));
            methods.push(("bootstrap BCa", bootstrap.as_ref().and_then(|b| b.bca(&left_out, LEVEL))));
            let half = t(LEVEL, prompts - 1) * standard_error(&left_out);
            methods.push(("jackknife t", Some(Interval::around(fit.win_rate, half))));
        }
        methods
    });
}
