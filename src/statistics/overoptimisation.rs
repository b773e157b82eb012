//! The hump of gold reward over the distance from the reference, d = √KL: forms, peaks, and how sure they are.
//!
//! Gao, Schulman & Hilton 2022: R(d) = d (α − β log d) for reinforcement learning, d (α − β d) for best-of-n; Rafailov et al. 2024
//! fit the first to the win rate of direct alignment. Both are linear in α and β, hence least squares.

use rayon::prelude::*;

use super::bootstrap::{Bootstrap, Resampling};
use super::dense::inverse;
use super::interval::Interval;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// d (α − β log d).
    Learning,
    /// d (α − β d).
    BestOfN,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    pub form: Form,
    pub alpha: f64,
    pub beta: f64,
    /// Sum of squared residuals.
    pub squares: f64,
}

/// Where a fit is highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    pub d: f64,
    pub reward: f64,
}

impl Fit {
    /// Least squares over points (d, R), d positive, R relative to d = 0. None where they don't determine both parameters.
    pub fn new(form: Form, points: &[(f64, f64)]) -> Option<Self> {
        let columns = |d: f64| [d, Self::bend(form, d)];
        let (mut aa, mut ab, mut bb, mut ay, mut by) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (d, reward) in points {
            let [a, b] = columns(*d);
            aa += a * a;
            ab += a * b;
            bb += b * b;
            ay += a * reward;
            by += b * reward;
        }
        let determinant = aa * bb - ab * ab;
        if points.len() < 2 || determinant.abs() <= 1e-12 * aa * bb || !determinant.is_finite() {
            return None;
        }
        let (alpha, beta) = ((bb * ay - ab * by) / determinant, (aa * by - ab * ay) / determinant);
        let mut fit = Self { form, alpha, beta, squares: 0.0 };
        fit.squares = points.iter().map(|(d, reward)| (reward - fit.at(*d)).powi(2)).sum();
        Some(fit)
    }

    fn bend(form: Form, d: f64) -> f64 {
        match form {
            Form::Learning => -d * libm::log(d),
            Form::BestOfN => -d * d,
        }
    }

    pub fn at(&self, d: f64) -> f64 {
        if d <= 0.0 { 0.0 } else { self.alpha * d + self.beta * Self::bend(self.form, d) }
    }

    /// d* = exp(α / β − 1) with R* = β d*, or α / 2β with α² / 4β. None for a form that never falls.
    pub fn peak(&self) -> Option<Peak> {
        let (alpha, beta) = (self.alpha, self.beta);
        let d = match self.form {
            Form::Learning => libm::exp(alpha / beta - 1.0),
            Form::BestOfN => alpha / (2.0 * beta),
        };
        (beta > 0.0 && d.is_finite() && d > 0.0).then(|| Peak { d, reward: self.at(d) })
    }
}

/// c + b d + a d² by least squares, with standard errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quadratic {
    /// c, b, a.
    pub coefficients: [f64; 3],
    pub standard_errors: [f64; 3],
    pub df: f64,
}

impl Quadratic {
    /// None for fewer than four points, or fewer than three distances.
    pub fn new(points: &[(f64, f64)]) -> Option<Self> {
        let (mut normal, mut right) = ([0.0; 9], [0.0; 3]);
        for (d, reward) in points {
            let row = [1.0, *d, d * d];
            for i in 0..3 {
                right[i] += row[i] * reward;
                for j in 0..3 {
                    normal[i * 3 + j] += row[i] * row[j];
                }
            }
        }
        let inverted = inverse(&normal, 3).filter(|_| points.len() > 3)?;
        let coefficients = [0, 1, 2].map(|i| (0..3).map(|j| inverted[i * 3 + j] * right[j]).sum::<f64>());
        let [c, b, a] = coefficients;
        let squares: f64 = points.iter().map(|(d, reward)| (reward - c - b * d - a * d * d).powi(2)).sum();
        let df = (points.len() - 3) as f64;
        let standard_errors = [0, 1, 2].map(|i| (inverted[i * 3 + i] * squares / df).sqrt());
        Some(Self { coefficients, standard_errors, df })
    }

    /// Where it is highest. None where it doesn't bend down.
    pub fn vertex(&self) -> Option<f64> {
        let [_, b, a] = self.coefficients;
        (a < 0.0).then(|| -b / (2.0 * a))
    }
}

/// What was measured at a checkpoint, prompt by prompt, the same prompts at each.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// KL to the reference, nats.
    pub kl: Vec<f64>,
    /// Reward above the reference's (a win rate above one half, say).
    pub reward: Vec<f64>,
}

impl Checkpoint {
    /// (√KL, R) over the drawn prompts.
    pub(crate) fn point(&self, drawn: &[u32]) -> (f64, f64) {
        let mean = |values: &[f64]| drawn.iter().map(|i| values[*i as usize]).sum::<f64>() / drawn.len() as f64;
        (mean(&self.kl).max(0.0).sqrt(), mean(&self.reward))
    }
}

/// The fitted hump with what resampling prompts and checkpoints together says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hump {
    pub fit: Fit,
    pub peak: Option<Peak>,
    /// The share of resamples whose fit falls again within the distances that were reached.
    pub falls: f64,
    /// Of the resamples that have one: the peak's distance and reward, and by how much the last checkpoint's fit lies below it.
    pub distance: Option<Bootstrap>,
    pub reward: Option<Bootstrap>,
    pub drop: Option<Bootstrap>,
    /// The fits of the resamples that determine one.
    pub fits: Vec<Fit>,
}

impl Hump {
    /// The fit at a distance with pointwise percentiles of the resampled fits.
    pub fn band(&self, d: f64, level: f64) -> Option<(f64, Interval)> {
        let all = Bootstrap::new(self.fit.at(d), self.fits.iter().map(|fit| fit.at(d)).collect())?;
        Some((all.value, all.percentile(level)))
    }
}

/// The fit of a resample, and, where its peak lies before the last checkpoint, that with the drop since.
type Refit = (Fit, Option<(Peak, f64)>);

/// `checkpoints` in the order of training. Each resample draws prompts and checkpoints; the last one, whose drop is asked for, keeps
/// its place. None where the points don't determine a fit.
pub fn hump(checkpoints: &[Checkpoint], form: Form, resampling: Resampling) -> Option<Hump> {
    let prompts = checkpoints.first()?.kl.len();
    let all: Vec<u32> = (0..prompts as u32).collect();
    let points = |drawn: &[u32]| checkpoints.iter().map(|c| c.point(drawn)).collect::<Vec<_>>();
    let seen = points(&all);
    let fit = Fit::new(form, &positive(&seen))?;
    let last = seen.last()?.0;

    let of_prompts = resampling.replicates(prompts, points);
    let purpose = format!("{}/checkpoints", resampling.purpose);
    let picks = Resampling { purpose: &purpose, ..resampling }.replicates(checkpoints.len(), <[u32]>::to_vec);
    let resampled = |(points, picks): (&Vec<(f64, f64)>, &Vec<u32>)| {
        let chosen: Vec<(f64, f64)> = picks.iter().map(|i| points[*i as usize]).collect();
        let last = points.last().expect("a checkpoint").0;
        let fit = Fit::new(form, &positive(&chosen))?;
        Some((fit, fit.peak().filter(|peak| peak.d < last).map(|peak| (peak, peak.reward - fit.at(last)))))
    };
    let refits: Vec<Option<Refit>> = of_prompts.par_iter().zip(&picks).map(resampled).collect();
    let peaks: Vec<Option<(Peak, f64)>> = refits.iter().map(|refit| refit.and_then(|(_, peak)| peak)).collect();
    let found: Vec<(Peak, f64)> = peaks.iter().flatten().copied().collect();
    let peak = fit.peak();
    let of = |value: f64, each: fn(&(Peak, f64)) -> f64| Bootstrap::new(value, found.iter().map(each).collect());
    Some(Hump {
        fit,
        peak,
        falls: found.len() as f64 / peaks.len() as f64,
        distance: peak.and_then(|p| of(p.d, |(peak, _)| peak.d)),
        reward: peak.and_then(|p| of(p.reward, |(peak, _)| peak.reward)),
        drop: peak.and_then(|p| of(p.reward - fit.at(last), |(_, drop)| *drop)),
        fits: refits.iter().flatten().map(|(fit, _)| *fit).collect(),
    })
}

fn positive(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points.iter().copied().filter(|(d, _)| *d > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::interval::t_cdf;
    use super::super::reference::{close, number, numbers, vectors};
    use super::*;
    use dpo_eval_rng::Stream;

    #[test]
    fn both_forms_and_their_peaks_meet_the_reference() {
        let Some(file) = vectors("overoptimization_dpo") else { return };
        let d = numbers(&file["sqrt_kl_d"]);
        for (form, rewards, name) in [(Form::Learning, "R_rl", "fit_rl"), (Form::BestOfN, "R_bon", "fit_bon")] {
            let points: Vec<(f64, f64)> = d.iter().copied().zip(numbers(&file[rewards])).collect();
            let fit = Fit::new(form, &points).unwrap();
            let peak = fit.peak().unwrap();
            let found = [fit.alpha, fit.beta, peak.d, peak.d * peak.d, peak.reward];
            close(&found, &["alpha", "beta", "d_peak", "kl_peak", "R_peak"].map(|key| number(&file[name][key])), 1e-6);
            if let Some(squares) = file[name]["rss"].as_f64() {
                close(&[fit.squares], &[squares], 1e-9);
            }
        }
    }

    #[test]
    fn the_quadratic_meets_statsmodels() {
        let Some(file) = vectors("overoptimization_dpo") else { return };
        let (d, gold) = (numbers(&file["sqrt_kl_d"]), numbers(&file["gold_proxy"]["gold_winrate"]));
        let fit = Quadratic::new(&d.into_iter().zip(gold).collect::<Vec<_>>()).unwrap();
        let expected = &file["gold_proxy"]["quad_fit_in_sqrt_kl"];
        close(&fit.coefficients, &numbers(&expected["params"]), 1e-9);
        close(&fit.standard_errors, &numbers(&expected["bse"]), 1e-9);
        let t = fit.coefficients[2] / fit.standard_errors[2];
        close(&[t, t_cdf(t, fit.df)], &[number(&expected["t_curvature"]), number(&expected["p_curvature_one_sided"])], 1e-6);
        close(&[fit.vertex().unwrap()], &[number(&expected["vertex_d"])], 1e-6);
    }

    #[test]
    fn orders_over_checkpoints_meet_scipy() {
        let Some(file) = vectors("overoptimization_dpo") else { return };
        let file = &file["gold_proxy"];
        let (proxy, gold) = (numbers(&file["proxy_winrate"]), numbers(&file["gold_winrate"]));
        let found = [super::super::rank::spearman(&proxy, &gold), super::super::rank::kendall_tau_b(&proxy, &gold)];
        close(&found.map(Option::unwrap), &[number(&file["spearman_all"]), number(&file["kendall_all"])], 1e-9);
    }

    /// Twelve checkpoints, 150 prompts, peak at d = 3.
    fn checkpoints(beta: f64, draw: u64) -> Vec<Checkpoint> {
        let truth = Fit { form: Form::Learning, alpha: beta * (1.0 + libm::log(3.0)), beta, squares: 0.0 };
        (1..=12)
            .map(|k| {
                let d = 0.5 * f64::from(k);
                let mut stream = Stream::of(draw, "test/hump", k as u64);
                let prompts = 0..150;
                Checkpoint {
                    kl: prompts.clone().map(|_| d * d * (1.0 + 0.3 * stream.normal())).collect(),
                    reward: prompts.map(|_| truth.at(d) + 0.3 * stream.normal()).collect(),
                }
            })
            .collect()
    }

    #[test]
    fn the_peak_is_found_with_an_interval_that_covers_it() {
        let resampling = Resampling { resamples: 200, seed: 4, purpose: "test/hump" };
        let mut covered = 0;
        for draw in 0..100 {
            let found = hump(&checkpoints(0.2, draw), Form::Learning, resampling).unwrap();
            assert!(found.falls > 0.95, "{}", found.falls);
            let interval = found.distance.as_ref().unwrap().percentile(0.95);
            covered += u32::from(interval.lower <= 3.0 && 3.0 <= interval.upper);
            assert!(found.drop.as_ref().unwrap().percentile(0.95).lower > 0.0);
            let (value, band) = found.band(3.0, 0.95).unwrap();
            assert!(band.lower < value && value < band.upper && band.width() < 0.2, "{value} {band:?}");
        }
        assert!(covered >= 88, "{covered}");
        // A reward that grows in proportion to d has no peak in reach.
        let mut rising = checkpoints(0.2, 0);
        for (k, checkpoint) in rising.iter_mut().enumerate() {
            checkpoint.reward = checkpoint.reward.iter().enumerate().map(|(i, _)| 0.1 * (k + i % 3) as f64).collect();
        }
        assert!(hump(&rising, Form::Learning, resampling).unwrap().falls < 0.5);
    }
}
