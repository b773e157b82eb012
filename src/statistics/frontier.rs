//! Methods compared at equal distance from the reference: what each reaches, reward over d = √KL, fitted over all its runs; and other
//! means over runs and prompts.
//!
//! Prompts are drawn once for all methods, so that differences are paired by prompt; runs (a strength under a seed, with all its
//! checkpoints) are drawn method by method, one fewer than there are: the mean of n − 1 draws out of n varies by s² / n, where n draws
//! would give (n − 1) / n of it, which matters for three seeds (Rao & Wu 1988, "Resampling inference with complex survey data").

use dpo_eval_rng::Stream;
use rayon::prelude::*;

use super::bootstrap::{Bootstrap, Resampling};
use super::interval::{Interval, beta_quantile};
use super::overoptimisation::{Checkpoint, Fit, Form, Peak};

/// Where two frontiers are compared.
const GRID: usize = 25;

/// A way of training, with everything that was trained by it.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    pub form: Form,
    /// The checkpoints of each run, the same prompts at each.
    pub runs: Vec<Vec<Checkpoint>>,
}

/// The fit of a method's checkpoints with those of the resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontier {
    pub fit: Fit,
    /// Smallest and largest distance of its checkpoints.
    pub reach: [f64; 2],
    pub points: usize,
    /// In the order of the resamples, which are those of all methods; none where its draw doesn't determine a fit.
    fits: Vec<Option<Fit>>,
}

/// What is drawn together: prompts for all groups, and the runs of each.
struct Joint<'a> {
    prompts: usize,
    runs: Vec<usize>,
    resampling: Resampling<'a>,
}

impl Joint<'_> {
    fn replicates<T: Send>(&self, statistic: impl Fn(&[u32], &[Vec<u32>]) -> T + Sync) -> Vec<T> {
        let of_runs: Vec<String> =
            (0..self.runs.len()).map(|group| format!("{}/runs/{group}", self.resampling.purpose)).collect();
        let draw = |resample: usize| {
            let mut prompts = vec![0; self.prompts];
            Stream::of(self.resampling.seed, self.resampling.purpose, resample as u64).fill_indices(self.prompts, &mut prompts);
            let runs = of_runs.iter().zip(&self.runs).map(|(purpose, &count)| {
                let mut drawn = vec![0; count.saturating_sub(1).max(1)];
                Stream::of(self.resampling.seed, purpose, resample as u64).fill_indices(count, &mut drawn);
                drawn
            });
            statistic(&prompts, &runs.collect::<Vec<_>>())
        };
        (0..self.resampling.resamples).into_par_iter().map(draw).collect()
    }
}

fn mean_of(values: &[f64], drawn: &[u32]) -> f64 {
    drawn.iter().map(|i| values[*i as usize]).sum::<f64>() / drawn.len() as f64
}

/// A frontier for each method; none for one whose checkpoints don't determine a fit.
///
/// # Panics
/// When checkpoints have different numbers of prompts.
pub fn frontiers(methods: &[Method], resampling: Resampling) -> Vec<Option<Frontier>> {
    let checkpoints = || methods.iter().flat_map(|method| method.runs.iter().flatten());
    let Some(prompts) = checkpoints().next().map(|c| c.kl.len()) else { return methods.iter().map(|_| None).collect() };
    assert!(checkpoints().all(|c| c.kl.len() == prompts && c.reward.len() == prompts), "the same prompts at every checkpoint");
    let all: Vec<u32> = (0..prompts as u32).collect();
    let every = |count: usize| (0..count as u32).collect::<Vec<u32>>();
    let joint = Joint { prompts, runs: methods.iter().map(|method| method.runs.len()).collect(), resampling };
    let refits = joint.replicates(|prompts, runs| {
        methods.iter().zip(runs).map(|(method, runs)| fitted(method, runs, prompts)).collect::<Vec<_>>()
    });
    let found = |(index, method): (usize, &Method)| {
        let fit = fitted(method, &every(method.runs.len()), &all)?;
        let distances = method.runs.iter().flatten().map(|checkpoint| checkpoint.point(&all).0);
        let reach = distances.fold([f64::INFINITY, 0.0], |[near, far]: [f64; 2], d| [near.min(d), far.max(d)]);
        let points = method.runs.iter().map(Vec::len).sum();
        Some(Frontier { fit, reach, points, fits: refits.iter().map(|fits| fits[index]).collect() })
    };
    methods.iter().enumerate().map(found).collect()
}

fn fitted(method: &Method, runs: &[u32], prompts: &[u32]) -> Option<Fit> {
    let points = runs.iter().flat_map(|run| method.runs[*run as usize].iter().map(|checkpoint| checkpoint.point(prompts)));
    Fit::new(method.form, &points.filter(|(d, _)| *d > 0.0).collect::<Vec<_>>())
}

impl Frontier {
    fn resampled<'a>(&'a self, of: impl Fn(&Fit) -> Option<f64> + 'a) -> Vec<f64> {
        self.fits.iter().flatten().filter_map(of).collect()
    }

    /// α and β.
    pub fn parameters(&self) -> [Option<Bootstrap>; 2] {
        [
            Bootstrap::new(self.fit.alpha, self.resampled(|fit| Some(fit.alpha))),
            Bootstrap::new(self.fit.beta, self.resampled(|fit| Some(fit.beta))),
        ]
    }

    /// The fit at a distance with pointwise percentiles of the resampled fits.
    pub fn at(&self, d: f64, level: f64) -> Option<(f64, Interval)> {
        let all = Bootstrap::new(self.fit.at(d), self.resampled(|fit| Some(fit.at(d))))?;
        Some((all.value, all.percentile(level)))
    }

    fn within(&self, fit: &Fit) -> Option<Peak> {
        fit.peak().filter(|peak| peak.d < self.reach[1])
    }

    /// The peak within reach and, of the resamples that have one, its distance and reward.
    pub fn peak(&self) -> Option<(Peak, Option<Bootstrap>, Option<Bootstrap>)> {
        let peak = self.within(&self.fit)?;
        let of = |value: f64, each: fn(Peak) -> f64| Bootstrap::new(value, self.resampled(|fit| self.within(fit).map(each)));
        Some((peak, of(peak.d, |p| p.d), of(peak.reward, |p| p.reward)))
    }

    /// The share of the resamples that have a peak within reach.
    pub fn falls(&self) -> f64 {
        let (falling, all) = (self.resampled(|fit| self.within(fit).map(|p| p.d)).len(), self.fits.iter().flatten().count());
        if all == 0 { 0.0 } else { falling as f64 / all as f64 }
    }

    /// The root of the mean squared residual.
    pub fn residual(&self) -> f64 {
        (self.fit.squares / self.points as f64).sqrt()
    }
}

/// One frontier minus another over the distances that both reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    pub from: f64,
    pub to: f64,
    /// Mean over the distances.
    pub mean: Bootstrap,
    /// At distances that are evenly spaced from `from` to `to`.
    pub at: Vec<(f64, Bootstrap)>,
}

/// Both of one call of `frontiers`, whose draws they share. None where they reach no distance together, or one can't be fitted again.
pub fn gap(a: &Frontier, b: &Frontier) -> Option<Gap> {
    let [from, to] = [a.reach[0].max(b.reach[0]), a.reach[1].min(b.reach[1])];
    if from >= to {
        return None;
    }
    let places: Vec<f64> = (0..GRID).map(|i| from + (to - from) * i as f64 / (GRID - 1) as f64).collect();
    let resamples: Vec<(&Fit, &Fit)> = a.fits.iter().zip(&b.fits).filter_map(|(a, b)| a.as_ref().zip(b.as_ref())).collect();
    let differ = |(a, b): (&Fit, &Fit), d: f64| a.at(d) - b.at(d);
    let mean = |pair: (&Fit, &Fit)| places.iter().map(|d| differ(pair, *d)).sum::<f64>() / GRID as f64;
    let seen = (&a.fit, &b.fit);
    let at = |d: &f64| Some((*d, Bootstrap::new(differ(seen, *d), resamples.iter().map(|pair| differ(*pair, *d)).collect())?));
    Some(Gap {
        from,
        to,
        mean: Bootstrap::new(mean(seen), resamples.iter().map(|pair| mean(*pair)).collect())?,
        at: places.iter().map(at).collect::<Option<_>>()?,
    })
}

/// The mean of each group over its runs and prompts, with those of the resamples in their order: groups share their draws of prompts.
/// `groups`: runs, each a value a prompt. None where a group has no run, or prompts differ in number.
pub fn means(groups: &[Vec<Vec<f64>>], resampling: Resampling) -> Option<Vec<(f64, Vec<f64>)>> {
    let prompts = groups.first()?.first()?.len();
    let whole = groups.iter().all(|runs| !runs.is_empty() && runs.iter().all(|values| values.len() == prompts));
    if !whole || prompts == 0 {
        return None;
    }
    let joint = Joint { prompts, runs: groups.iter().map(Vec::len).collect(), resampling };
    let of = |group: &[Vec<f64>], runs: &[u32], prompts: &[u32]| {
        runs.iter().map(|run| mean_of(&group[*run as usize], prompts)).sum::<f64>() / runs.len() as f64
    };
    let replicates = joint
        .replicates(|prompts, runs| groups.iter().zip(runs).map(|(group, runs)| of(group, runs, prompts)).collect::<Vec<_>>());
    let all: Vec<u32> = (0..prompts as u32).collect();
    let found = |(index, group): (usize, &Vec<Vec<f64>>)| {
        let every: Vec<u32> = (0..group.len() as u32).collect();
        (of(group, &every, &all), replicates.iter().map(|values| values[index]).collect())
    };
    Some(groups.iter().enumerate().map(found).collect())
}

/// A ratio of two variances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VarianceRatio {
    pub value: f64,
    pub interval: Interval,
    pub df: [usize; 2],
}

/// The variance within the groups of `a` over that within those of `b`, pooled over groups (strengths, whose values are those of
/// seeds), with the F interval for normal values. None where nothing varies within a group of `b`, or no group has two values.
pub fn variance_ratio(a: &[Vec<f64>], b: &[Vec<f64>], level: f64) -> Option<VarianceRatio> {
    let pooled = |groups: &[Vec<f64>]| {
        let squares = |values: &Vec<f64>| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            values.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
        };
        let df: usize = groups.iter().map(|values| values.len().saturating_sub(1)).sum();
        (groups.iter().filter(|values| !values.is_empty()).map(squares).sum::<f64>() / df as f64, df)
    };
    let ((va, da), (vb, db)) = (pooled(a), pooled(b));
    if da == 0 || db == 0 || vb <= 0.0 {
        return None;
    }
    let value = va / vb;
    let tail = (1.0 - level) / 2.0;
    let interval = Interval { lower: value / f_quantile(1.0 - tail, da, db), upper: value / f_quantile(tail, da, db) };
    Some(VarianceRatio { value, interval, df: [da, db] })
}

/// x with P(F ≤ x) = `p`: if F has a and b degrees of freedom, a F / (a F + b) is Beta(a / 2, b / 2).
fn f_quantile(p: f64, a: usize, b: usize) -> f64 {
    let (a, b) = (a as f64, b as f64);
    let share = beta_quantile(p, a / 2.0, b / 2.0);
    b / a * share / (1.0 - share)
}

#[cfg(test)]
mod tests;
