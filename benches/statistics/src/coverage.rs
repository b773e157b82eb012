//! How often intervals of a nominal 95 % hold the truth, and how often the gate's rule errs.

use dpo_eval_rng::Stream;
use dpo_eval_statistics::bootstrap::{ClusterMean, Resampling};
use dpo_eval_statistics::interval::{Interval, t};
use dpo_eval_statistics::logistic::logistic;
use dpo_eval_statistics::mean::{Clustered, Range, mean, paired_difference, rate, ratio};
use dpo_eval_statistics::proportion::score;
use rayon::prelude::*;

use crate::worlds::{Items, Kind, WORLDS, World};

pub const SEED: u64 = 20_261_129;
pub const DRAWS: u64 = 2000;
pub const PROMPTS: [usize; 3] = [20, 100, 800];
pub const LEVEL: f64 = 0.95;

type Method = (&'static str, bool, fn(&Clustered, &World) -> Option<Interval>);

/// The first is what the reports use; others stand beside it for comparison.
const METHODS: [Method; 7] = [
    ("reports", true, |items, world| {
        let measured = match world.kind {
            Kind::Soft => mean(items, Range::UNIT, LEVEL),
            Kind::Hard => rate(items, LEVEL),
            Kind::Margin => mean(items, Range::REAL, LEVEL),
            Kind::Divergence => mean(items, Range::NON_NEGATIVE, LEVEL),
        };
        measured.map(|m| m.interval)
    }),
    ("t", false, |items, _| Some(Interval::around(items.mean(), half(items)?))),
    ("Wilson on effective n", false, |items, world| {
        let (p, error) = (items.mean(), items.standard_error()?);
        let defined = matches!(world.kind, Kind::Soft | Kind::Hard) && error > 0.0;
        defined.then(|| score(p, p * (1.0 - p) / (error * error), t(LEVEL, items.clusters() - 1)))
    }),
    ("t of the logit", false, |items, world| {
        let p = items.mean();
        if !matches!(world.kind, Kind::Soft | Kind::Hard) || p <= 0.0 || p >= 1.0 {
            return None;
        }
        let (logit, half) = (libm::log(p / (1.0 - p)), half(items)? / (p * (1.0 - p)));
        Some(Interval { lower: logistic(logit - half), upper: logistic(logit + half) })
    }),
    ("skewness-corrected t", false, |items, _| hall(items)),
    ("bootstrap BCa", false, |items, _| {
        let mean = ClusterMean::new(items);
        mean.bootstrap(resampling())?.bca(&mean.jackknife(), LEVEL)
    }),
    ("bootstrap studentised", false, |items, _| ClusterMean::new(items).studentised(resampling(), LEVEL)),
];

fn resampling() -> Resampling<'static> {
    Resampling { resamples: 599, seed: SEED, purpose: "coverage" }
}

fn half(items: &Clustered) -> Option<f64> {
    Some(t(LEVEL, items.clusters() - 1) * items.standard_error()?)
}

/// Hall 1992, "On the removal of skewness by transformation": t after a cubic that takes the skewness out.
fn hall(items: &Clustered) -> Option<Interval> {
    let (value, error, c) = (items.mean(), items.standard_error()?, items.clusters() as f64);
    let residuals: Vec<f64> = items.sums().iter().map(|[sum, n]| sum - n * value).collect();
    let moment = |k: i32| residuals.iter().map(|r| r.powi(k)).sum::<f64>() / c;
    let skew = moment(3) / moment(2).powf(1.5) / c.sqrt();
    if !skew.is_finite() || skew.abs() < 1e-6 {
        return Some(Interval::around(value, half(items)?));
    }
    let back = |x: f64| 3.0 / skew * (libm::cbrt(1.0 + skew * (x - skew / 6.0)) - 1.0);
    let critical = t(LEVEL, items.clusters() - 1);
    Some(Interval { lower: value - error * back(critical), upper: value - error * back(-critical) })
}

/// Of the draws that give an interval, those in which it held the truth, lay above, lay below; and its mean width.
fn tally(truth: f64, intervals: &[Option<Interval>]) -> (f64, f64, f64, f64) {
    let n = intervals.iter().flatten().count() as f64;
    let share = |f: &dyn Fn(&Interval) -> bool| intervals.iter().flatten().filter(|i| f(i)).count() as f64 / n;
    let width = intervals.iter().flatten().map(|i| i.width()).sum::<f64>() / n;
    (share(&|i| i.lower <= truth && truth <= i.upper), share(&|i| i.lower > truth), share(&|i| i.upper < truth), width)
}

pub fn row(what: &str, method: &str, prompts: usize, truth: f64, intervals: &[Option<Interval>]) {
    let given = intervals.iter().flatten().count() as f64 / intervals.len() as f64;
    // Few draws show little of how often intervals hold.
    if given < 0.1 {
        println!("{what},{method},{prompts},{truth:.5},,,,,{given:.4}");
        return;
    }
    let (covered, above, below, width) = tally(truth, intervals);
    println!("{what},{method},{prompts},{truth:.5},{covered:.4},{above:.4},{below:.4},{width:.5},{given:.4}");
}

/// All of it; or a part, without the head: `means`, `pairs`, `seeds`, `judges`, `lengths`.
pub fn print(part: Option<&str>) {
    if part.is_none() {
        println!("# cargo run --release -p dpo-eval-statistics-benches -- coverage (CANDIDATES=1); seed {SEED}, {DRAWS} draws");
        println!(
            "# given: draws with an interval; variances \"of\" seeds are held against all seeds, \"under\" them against those at hand, which is what their intervals claim"
        );
        println!("quantity,method,prompts,truth,covered,interval_above_truth,interval_below_truth,mean_width,given");
    }
    let wanted = |name: &str| part.is_none_or(|part| part == name);
    if wanted("means") {
        means();
    }
    if wanted("pairs") {
        crate::pairs::print();
    }
    if wanted("seeds") {
        crate::pairs::seeds();
    }
    if wanted("judges") {
        crate::judges::print(candidates());
    }
    if wanted("lengths") {
        crate::judges::at_equal_lengths(candidates());
    }
}

fn candidates() -> bool {
    std::env::var_os("CANDIDATES").is_some()
}

fn means() {
    let slow = candidates();
    for world in WORLDS {
        let truth = world.truth();
        for prompts in PROMPTS {
            for (name, always, method) in METHODS {
                if !always && (!slow || prompts > 100) {
                    continue;
                }
                let one = |draw: u64| {
                    let items = world.draw(prompts, &mut Stream::of(SEED, world.name, draw));
                    method(&Clustered::new(items), &world)
                };
                row(world.name, name, prompts, truth, &(0..DRAWS).into_par_iter().map(one).collect::<Vec<_>>());
            }
        }
    }
    for prompts in PROMPTS {
        ratios(prompts);
        differences(prompts);
    }
}

/// Lengths of two policies, log-normal around a level that they share.
fn ratios(prompts: usize) {
    let one = |draw: u64| {
        let mut stream = Stream::of(SEED, "lengths", draw);
        let (mut policy, mut reference): (Items, Items) = Default::default();
        for prompt in 0..prompts {
            let level = 4.0 + 0.4 * stream.normal();
            for _ in 0..2 {
                policy.push((prompt, libm::exp(level + 0.2 + 0.3 * stream.normal())));
                reference.push((prompt, libm::exp(level + 0.3 * stream.normal())));
            }
        }
        ratio(policy, reference, LEVEL).map(|m| m.interval)
    };
    row("length ratio", "reports", prompts, libm::exp(0.2), &(0..DRAWS).into_par_iter().map(one).collect::<Vec<_>>());
}

/// The gate's rule at its edges: fail where the interval of new − golden lies below −margin, pass where it lies above. At a true
/// difference of −margin either is an error; at none, a fail is.
fn differences(prompts: usize) {
    const MARGIN: f64 = 0.02;
    for (name, leans) in [("even", 0.0), ("leaning", 2.0)] {
        let one = |draw: u64| {
            let mut stream = Stream::of(SEED, name, draw);
            let (mut new, mut golden): (Items, Items) = Default::default();
            for prompt in 0..prompts {
                let level = leans + stream.normal();
                for _ in 0..2 {
                    golden.push((prompt, logistic(level + 0.7 * stream.normal())));
                    new.push((prompt, logistic(level + 0.7 * stream.normal())));
                }
            }
            paired_difference(new, golden, Range::DIFFERENCE, LEVEL).map(|m| m.interval)
        };
        let intervals: Vec<_> = (0..DRAWS).into_par_iter().map(one).collect();
        row(&format!("paired difference of {name} judges"), "reports", prompts, 0.0, &intervals);
        // Moved by the margin: the truth is −margin exactly.
        let n = intervals.len() as f64;
        let fails = intervals.iter().flatten().filter(|i| i.upper - MARGIN < -MARGIN).count() as f64 / n;
        let passes = intervals.iter().flatten().filter(|i| i.lower - MARGIN > -MARGIN).count() as f64 / n;
        let healthy = intervals.iter().flatten().filter(|i| i.upper < -MARGIN).count() as f64 / n;
        println!("gate fails at the margin ({name} judges),reports,{prompts},-0.02000,{:.4},,,,", fails);
        println!("gate passes at the margin ({name} judges),reports,{prompts},-0.02000,{:.4},,,,", passes);
        println!("gate fails without a difference ({name} judges),reports,{prompts},0.00000,{:.4},,,,", healthy);
    }
}
