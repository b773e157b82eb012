//! Variance components with their intervals.
//!
//! The component of a group (prompt, seed, judge) is A − B: A the variance of the groups' means, B what of it comes from within them. Both
//! are mean squares, and the interval is that of a difference of two (modified large sample: Burdick & Graybill 1992, "Confidence
//! Intervals on Variance Components", §3.3, without its small cross term). A few means of many values are nearly normal, so that A of seeds
//! and of judges has as many degrees of freedom as groups less one. Prompts are many, and their means anything between
//! 0 and 1: theirs are those that their fourth moment gives.

use super::super::interval::{Interval, chi_squared_quantile, t};
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
        // The same without any of the prompts: a component that isn't there has no spread to tell how small it is.
        if error <= 1e-9 * total {
            continue;
        }
        let measured = if source == Source::Sample && all.rest.is_none() && value > 0.0 && error > 0.0 {
            cut(value, of_variance(value, 2.0 * (value / error).powi(2), level), prompts, OF_SAMPLES)
        } else {
            cut(value, Interval::around(value, t(level, prompts.min(LEFT_OUT) - 1) * error), prompts, BY_JACKKNIFE)
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

/// None for fewer than two groups, or no spread between them.
fn of_groups(value: f64, grouping: &Grouping, values: &[f64], by_moments: bool, level: f64) -> Option<Interval> {
    let means = grouping.means(values);
    let count = means.len() as f64;
    let centre = means.iter().sum::<f64>() / count;
    let moment = |k: i32| means.iter().map(|m| (m - centre).powi(k)).sum::<f64>() / count;
    let between = moment(2) * count / (count - 1.0);
    if means.len() < 2 || between <= 0.0 {
        return None;
    }
    // Var(s²) = (μ₄ − σ⁴ (C − 3) / (C − 1)) / C, and the degrees of freedom ν of a variance are 2 σ⁴ / Var(s²).
    let spread = (moment(4) - between * between * (count - 3.0) / (count - 1.0)) / count;
    let df = if by_moments && spread > 0.0 { 2.0 * between * between / spread } else { count - 1.0 };
    // Below the estimate, A may have been larger by chance, or B smaller.
    let (a, b) = (between, (between - value).max(0.0));
    let rest = values.len() as f64 - count;
    let distance = |of: f64, df: f64| {
        let Interval { lower, upper } = of_variance(of, df, level);
        (of - lower, upper - of)
    };
    let (a_down, a_up) = distance(a, df);
    let (b_down, b_up) = if rest >= 1.0 && b > 0.0 { distance(b, rest) } else { (0.0, 0.0) };
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
