//! Variance components with their intervals.
//!
//! The component of a group (prompt, seed, judge) is A − B: A the variance of the groups' means, B what of it comes from within them. Both
//! are mean squares, and the interval is that of a difference of two (modified large sample: Burdick & Graybill 1992, "Confidence
//! Intervals on Variance Components", §3.3, without its small cross term). A few means of many values are nearly normal, so that A of seeds
//! and of judges has the chi-square interval with as many degrees of freedom as groups less one. Prompts are many, and their means anything
//! between 0 and 1: theirs is Bonett's interval for a variance of values that aren't normal (Bonett 2006, "Approximate confidence interval
//! for standard deviation of nonnormal distributions", Computational Statistics & Data Analysis 50).
//!
//! What prompts and samples add is that under the seeds at hand: where preferences are no sum of parts (a judge is surer far from ½), other
//! seeds would give other parts, which few seeds can't tell and these intervals don't hold. How often they hold the one and the other stands in
//! `golden/statistics/coverage.csv`.

use super::super::interval::{Interval, chi_squared_quantile, normal_cdf, t, z};
use super::super::mean::Measured;
use super::{Components, Design, Grouping, Observation};

pub const OF_GROUPS: &str = "symmetric sums, modified large sample";
pub const OF_SAMPLES: &str = "symmetric sums, chi-square with degrees of freedom by jackknife of prompts";
pub const BY_JACKKNIFE: &str = "symmetric sums, jackknife of prompts";

/// Groups of prompts that the jackknife leaves out in turn, at most.
const LEFT_OUT: usize = 40;

/// What a component belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Prompt,
    Seed,
    PromptBySeed,
    Sample,
    Judge,
    Rest,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Seed => "seed",
            Self::PromptBySeed => "prompt by seed",
            Self::Sample => "sample",
            Self::Judge => "judge",
            Self::Rest => "judge by completion",
        }
    }
}

/// Every component that the design can tell and that varies, each with its interval, none below zero. `most`: the largest variance that values in this
/// range can have, ¼ for those between 0 and 1.
pub fn spreads(items: &[Observation], most: f64, level: f64) -> Vec<(Source, Measured)> {
    let design = Design::new(items);
    let all = design.components(&|_| true);
    let jackknife = Jackknife::new(&design, all);
    let total = design.values.iter().map(|v| v * v).sum::<f64>() / items.len() as f64;
    let cut = |value: f64, interval: Interval, clusters, method| {
        let Interval { lower, upper } = interval.within(0.0, most);
        let value = value.clamp(0.0, most);
        let interval = Interval { lower: lower.min(value), upper: upper.max(value) };
        Measured { value, interval, n: items.len(), clusters, method }
    };
    let mut found = Vec::new();
    let prompts = design.prompt.groups;
    for (source, value, grouping) in [
        (Source::Prompt, all.prompt, &design.prompt),
        (Source::Seed, all.seed, &design.seed),
        (Source::Judge, all.judge, &design.judge),
    ] {
        let Some(value) = value else { continue };
        let interval = of_groups(value, grouping, &design.values, source == Source::Prompt, level);
        found.extend(interval.map(|interval| (source, cut(value, interval, grouping.groups, OF_GROUPS))));
    }
    for (source, of) in [
        (Source::PromptBySeed, (|c: Components| c.prompt_by_seed) as fn(Components) -> Option<f64>),
        (Source::Sample, |c| c.sample),
        (Source::Rest, |c| c.rest),
    ] {
        let Some((value, error)) = of(all).zip(jackknife.as_ref().and_then(|j| j.standard_error(of))) else { continue };
        let critical = t(level, prompts.min(LEFT_OUT) - 1);
        // The same without any of the prompts: a component that isn't there has no spread to tell how small it is.
        if error <= 1e-9 * total {
            continue;
        }
        let measured = if source == Source::Sample && all.rest.is_none() && value > 0.0 && error > 0.0 {
            // The degrees of freedom are an estimate too, of as few groups as t allows for.
            let level = 2.0 * normal_cdf(critical) - 1.0;
            cut(value, of_variance(value, 2.0 * (value / error).powi(2), level), prompts, OF_SAMPLES)
        } else {
            cut(value, Interval::around(value, critical * error), prompts, BY_JACKKNIFE)
        };
        found.push((source, measured));
    }
    found.sort_by_key(|(source, _)| *source as usize);
    found
}

/// Of a mean square with these degrees of freedom, that are an approximation.
fn of_variance(value: f64, df: f64, level: f64) -> Interval {
    let at = |p: f64| value * df / chi_squared_quantile(p, df);
    Interval { lower: at(0.5 + level / 2.0), upper: at(0.5 - level / 2.0) }
}

/// Bonett's interval of the variance of some values: exp(ln(c s²) ± z c √((γ − (n − 3) / n) / (n − 1))), c = n / (n − z), γ their kurtosis
/// about a mean trimmed by 1 / (2 √(n − 4)) of them on each side. For four values and fewer, which tell no kurtosis, chi-square.
fn bonett(mut values: Vec<f64>, level: f64) -> Interval {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let variance = squares / (n - 1.0);
    let critical = z(level);
    if values.len() <= 4 || variance <= 0.0 {
        return of_variance(variance, n - 1.0, level);
    }
    values.sort_by(f64::total_cmp);
    let cut = ((n / (2.0 * (n - 4.0).sqrt())) as usize).min((values.len() - 1) / 2);
    let kept = &values[cut..values.len() - cut];
    let trimmed = kept.iter().sum::<f64>() / kept.len() as f64;
    let kurtosis = n * values.iter().map(|v| (v - trimmed).powi(4)).sum::<f64>() / (squares * squares);
    let scale = n / (n - critical);
    let half = critical * scale * ((kurtosis - (n - 3.0) / n).max(0.0) / (n - 1.0)).sqrt();
    Interval { lower: scale * variance * libm::exp(-half), upper: scale * variance * libm::exp(half) }
}

/// None for fewer than two groups, or no spread between them.
fn of_groups(value: f64, grouping: &Grouping, values: &[f64], are_prompts: bool, level: f64) -> Option<Interval> {
    let means = grouping.means(values);
    let count = means.len() as f64;
    let centre = means.iter().sum::<f64>() / count;
    let between = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (count - 1.0);
    if means.len() < 2 || between <= 0.0 {
        return None;
    }
    // Below the estimate, A may have been larger by chance, or B smaller.
    let (a, b) = (between, (between - value).max(0.0));
    let rest = values.len() as f64 - count;
    let of_means = if are_prompts { bonett(means, level) } else { of_variance(a, count - 1.0, level) };
    let (a_down, a_up) = ((a - of_means.lower).max(0.0), (of_means.upper - a).max(0.0));
    let (b_down, b_up) = if rest >= 1.0 && b > 0.0 {
        let Interval { lower, upper } = of_variance(b, rest, level);
        (b - lower, upper - b)
    } else {
        (0.0, 0.0)
    };
    Some(Interval { lower: value - a_down.hypot(b_up), upper: value + a_up.hypot(b_down) })
}

/// All components without each group of prompts in turn.
struct Jackknife(Vec<Components>);

impl Jackknife {
    /// None for fewer than two prompts.
    fn new(design: &Design, all: Components) -> Option<Self> {
        let groups = design.prompt.groups.min(LEFT_OUT);
        let wanted = all.prompt_by_seed.is_some() || all.sample.is_some() || all.rest.is_some();
        let without = |group: usize| design.components(&|i| design.prompt.group[i] % groups != group);
        (groups > 1 && wanted).then(|| Self((0..groups).map(without).collect()))
    }

    /// √((G − 1) / G Σ (θ_g − mean)²).
    fn standard_error(&self, of: fn(Components) -> Option<f64>) -> Option<f64> {
        let left: Option<Vec<f64>> = self.0.iter().map(|components| of(*components)).collect();
        let left = left?;
        let groups = left.len() as f64;
        let mean = left.iter().sum::<f64>() / groups;
        Some(((groups - 1.0) / groups * left.iter().map(|l| (l - mean) * (l - mean)).sum::<f64>()).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::draw;
    use super::*;

    #[test]
    fn components_lie_in_their_intervals_and_what_the_design_cannot_tell_is_left_out() {
        let names = |found: &[(Source, Measured)]| found.iter().map(|(source, _)| source.name()).collect::<Vec<_>>();
        let found = spreads(&draw(30, 3, 2, 1), f64::INFINITY, 0.95);
        assert_eq!(names(&found), ["prompt", "seed", "prompt by seed", "sample"]);
        assert_eq!(found.iter().map(|(_, m)| m.clusters).collect::<Vec<_>>(), [30, 3, 30, 30]);
        for (source, m) in &found {
            assert!(0.0 <= m.interval.lower && m.interval.lower <= m.value && m.value <= m.interval.upper, "{source:?} {m:?}");
        }
        assert_eq!(names(&spreads(&draw(30, 3, 1, 1), 1.0, 0.95)), ["prompt", "seed", "sample"]);
        assert_eq!(names(&spreads(&draw(30, 1, 2, 1), 1.0, 0.95)), ["prompt", "sample"]);
        assert!(spreads(&draw(1, 1, 1, 1), 1.0, 0.95).is_empty());
    }

    #[test]
    fn the_interval_of_the_samples_variance_is_the_chi_square_one_for_normal_values() {
        // 40 prompts with two samples of one seed each: 40 degrees of freedom.
        let items: Vec<Observation> = (0..60).flat_map(|d| draw(40, 1, 2, 100 + d)).collect();
        let width = |m: &Measured| (m.interval.upper - m.interval.lower) / m.value;
        let found: Vec<f64> = items
            .chunks(80)
            .map(|items| width(&spreads(items, f64::INFINITY, 0.95).into_iter().find(|(s, _)| *s == Source::Sample).unwrap().1))
            .collect();
        let exact = of_variance(1.0, 40.0, 0.95).width();
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert!((mean / exact - 1.0).abs() < 0.1, "{mean} {exact}");
    }

    /// Written out by hand from the paper's formula: n = 6, mean 5, s² = 16, cut ⌊6 / (2 √2)⌋ = 2 on each side, trimmed mean 4.
    #[test]
    fn bonetts_interval_is_that_of_its_formula() {
        let values = vec![12.0, 1.0, 2.0, 4.0, 4.0, 7.0];
        let kurtosis: f64 = 6.0 * (8f64.powi(4) + 3f64.powi(4) + 2f64.powi(4) + 3f64.powi(4)) / (80.0 * 80.0);
        let c: f64 = 6.0 / (6.0 - 1.959_963_984_540_054);
        let half = 1.959_963_984_540_054 * c * ((kurtosis - 0.5) / 5.0).sqrt();
        let found = bonett(values, 0.95);
        let expected = [c * 16.0 * (-half).exp(), c * 16.0 * half.exp()];
        assert!((found.lower / expected[0] - 1.0).abs() < 1e-9 && (found.upper / expected[1] - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn seeds_that_spread_are_told_from_prompts_that_do() {
        let covered = (0..300)
            .filter(|d| {
                let found = spreads(&draw(40, 5, 1, *d), f64::INFINITY, 0.95);
                let of = |source| found.iter().find(|(s, _)| *s == source).map(|(_, m)| m.interval).unwrap();
                let holds = |i: Interval, truth: f64| i.lower <= truth && truth <= i.upper;
                holds(of(Source::Seed), 0.25) && holds(of(Source::Prompt), 1.0)
            })
            .count();
        // Both at 95 %.
        assert!((255..=285).contains(&covered), "{covered}");
    }
}
