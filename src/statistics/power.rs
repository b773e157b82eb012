//! How many prompts would decide, and what a number of prompts can show (Miller 2024, "Adding Error Bars to Evals", §5).

use statrs::function::beta::beta_reg;
use statrs::function::gamma::ln_gamma;

use super::interval::{Interval, bisect, normal_cdf, normal_quantile, t, t_real, z};

/// The chance to decide that planning aims at.
pub const POWER: f64 = 0.8;

/// Differences of a rate smaller than half a percentage point are not worth planning for: the number of prompts would only
/// say that there is no difference.
pub const SMALLEST_DIFFERENCE: f64 = 0.005;

/// n = (z_{α/2} + z_β)² σ² / δ²: independent units (prompts) needed to see a true difference `delta` with chance `power`.
///
/// `variance`: of one prompt's value: ω² + σ²_A / K_A + σ²_B / K_B, the spread of prompts and that of K samples each.
pub fn prompts_needed(delta: f64, variance: f64, level: f64, power: f64) -> f64 {
    (z(level) + normal_quantile(power)).powi(2) * variance / (delta * delta)
}

/// The true difference that `prompts` prompts show with chance `power`.
pub fn minimum_detectable_difference(prompts: usize, variance: f64, level: f64, power: f64) -> f64 {
    (z(level) + normal_quantile(power)) * (variance / prompts as f64).sqrt()
}

/// A paired comparison of two policies, several samples a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// ω²: variance of prompts' true differences.
    pub between: f64,
    /// σ²: variance of a sample's value around its prompt's, of either policy.
    pub within: [f64; 2],
    /// Samples a prompt, of either policy.
    pub samples: [f64; 2],
}

impl Design {
    /// Variance of one prompt's mean difference, ω² + σ²_A / K_A + σ²_B / K_B.
    pub fn variance(self) -> f64 {
        self.between + self.within[0] / self.samples[0] + self.within[1] / self.samples[1]
    }

    pub fn prompts_needed(self, delta: f64, level: f64, power: f64) -> f64 {
        prompts_needed(delta, self.variance(), level, power)
    }

    pub fn minimum_detectable_difference(self, prompts: usize, level: f64, power: f64) -> f64 {
        minimum_detectable_difference(prompts, self.variance(), level, power)
    }
}

/// Independent hard verdicts needed to tell a true win rate `rate` from ½: (z_{α/2} √¼ + z_β √(p (1 − p)))² / (p − ½)².
pub fn verdicts_needed(rate: f64, level: f64, power: f64) -> f64 {
    let sum = z(level) * 0.5 + normal_quantile(power) * (rate * (1.0 - rate)).sqrt();
    (sum / (rate - 0.5)).powi(2)
}

/// The chance of the two-sided paired t-test to see a mean difference of `effect` standard deviations with `n` pairs.
pub fn t_test_power(effect: f64, n: f64, level: f64) -> f64 {
    let (df, critical, shift) = (n - 1.0, t_real(level, n - 1.0), effect * n.sqrt());
    1.0 - noncentral_t_cdf(critical, df, shift) + noncentral_t_cdf(-critical, df, shift)
}

/// Pairs that give the t-test this power. For few pairs it is more than [`prompts_needed`] says.
pub fn t_test_pairs_needed(effect: f64, level: f64, power: f64) -> f64 {
    let normal = prompts_needed(effect, 1.0, level, power);
    bisect(normal.max(2.0) - 0.999, 2.0 * normal + 20.0, |n| t_test_power(effect, n, level) - power)
}

/// The mean difference, in standard deviations, that the two-sided paired t-test sees with this chance.
pub fn detectable_effect(pairs: f64, level: f64, power: f64) -> f64 {
    bisect(0.0, 100.0, |effect| t_test_power(effect, pairs, level) - power)
}

/// P(T ≤ t) of the noncentral t distribution (Lenth 1989, algorithm AS 243).
fn noncentral_t_cdf(x: f64, df: f64, shift: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - noncentral_t_cdf(-x, df, -shift);
    }
    let (share, squared, b) = (x * x / (x * x + df), shift * shift, df / 2.0);
    let mut total = normal_cdf(-shift);
    if share <= 0.0 {
        return total;
    }
    let mut p = 0.5 * libm::exp(-0.5 * squared);
    let mut q = (2.0 / std::f64::consts::PI).sqrt() * p * shift;
    let mut a = 0.5;
    let rest = libm::pow(1.0 - share, b);
    let beta = 0.5 * libm::log(std::f64::consts::PI) + ln_gamma(b) - ln_gamma(0.5 + b);
    let (mut odd, mut even) = (beta_reg(a, b, share), 1.0 - rest);
    let mut odd_step = 2.0 * rest * libm::exp(a * libm::log(share) - beta);
    let mut even_step = b * share * rest;
    total += p * odd + q * even;
    for i in 1..1000 {
        let i = f64::from(i);
        a += 1.0;
        odd -= odd_step;
        even -= even_step;
        odd_step *= share * (a + b - 1.0) / a;
        even_step *= share * (a + b - 0.5) / (a + 0.5);
        p *= squared / (2.0 * i);
        q *= squared / (2.0 * i + 1.0);
        let added = p * odd + q * even;
        total += added;
        if added.abs() < 1e-15 && i > squared {
            break;
        }
    }
    total.clamp(0.0, 1.0)
}

/// About how many prompts would tell a value with this interval from `bound`, if the truth is what was seen. The spread is read
/// off the interval, on its wider side (the other may be cut at the end of the range).
pub fn prompts_to_decide(value: f64, interval: Interval, clusters: usize, level: f64, bound: f64) -> u64 {
    let half_width = (interval.upper - value).max(value - interval.lower);
    let prompts = clusters.max(2);
    let variance = (half_width / t(level, prompts - 1)).powi(2) * prompts as f64;
    let delta = (value - bound).abs().max(SMALLEST_DIFFERENCE);
    // An undecided value needs more than it has, whatever the approximation says.
    (prompts_needed(delta, variance, level, POWER).ceil() as u64).max(clusters as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, vectors};
    use super::*;

    #[test]
    fn sample_sizes_meet_miller() {
        let Some(file) = vectors("clustered_paired_power") else { return };
        for case in file["power_miller"].as_array().unwrap() {
            let f = |name: &str| case[name].as_f64().unwrap();
            let within = [f("sigmaA2"), f("sigmaB2")];
            let design = Design { between: f("omega2"), within, samples: [f("K_A"), f("K_B")] };
            let (level, power) = (1.0 - f("alpha"), 1.0 - f("beta"));
            close(&[design.prompts_needed(f("delta"), level, power) / f("n_exact")], &[1.0], 1e-9);
            close(&[design.minimum_detectable_difference(1000, level, power)], &[f("mde_at_n_1000")], 1e-9);
        }
    }

    #[test]
    fn detectable_effects_meet_statsmodels() {
        // TTestPower().solve_power(nobs, power, alpha) of statsmodels 0.15.
        let known = [
            (400.0, 0.95, 0.8, 0.140_417_436_825_529_5),
            (20.0, 0.95, 0.8, 0.660_441_654_438_031),
            (5.0, 0.9, 0.9, 1.609_940_550_266_711),
        ];
        for (pairs, level, power, expected) in known {
            close(&[detectable_effect(pairs, level, power)], &[expected], 1e-6);
        }
    }

    #[test]
    fn win_rates_and_t_tests_meet_statsmodels() {
        let Some(file) = vectors("clustered_paired_power") else { return };
        for case in file["power_winrate_vs_half"].as_array().unwrap() {
            let f = |name: &str| case[name].as_f64().unwrap();
            close(&[verdicts_needed(f("p1"), 1.0 - f("alpha"), f("power")) / f("n_normal")], &[1.0], 1e-9);
        }
        for case in file["ttest_paired_power"].as_array().unwrap() {
            let f = |name: &str| case[name].as_f64().unwrap();
            let level = 1.0 - f("alpha");
            close(&[t_test_power(f("effect_size_dz"), f("n"), level)], &[f("power")], 1e-6);
            close(&[t_test_pairs_needed(f("effect_size_dz"), level, f("power")) / f("n")], &[1.0], 1e-6);
        }
    }
}
