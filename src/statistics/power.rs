//! How many prompts would decide, and what a number of prompts can show (Miller 2024, "Adding Error Bars to Evals", §5).

use super::interval::{Interval, normal_quantile, t, z};

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
            let variance = f("omega2") + f("sigmaA2") / f("K_A") + f("sigmaB2") / f("K_B");
            let (level, power) = (1.0 - f("alpha"), 1.0 - f("beta"));
            let n = prompts_needed(f("delta"), variance, level, power);
            close(&[n / f("n_exact")], &[1.0], 1e-9);
            close(&[minimum_detectable_difference(1000, variance, level, power)], &[f("mde_at_n_1000")], 1e-9);
        }
    }
}
