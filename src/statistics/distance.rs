//! How far two samples of a number are apart.

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut ascending = values.to_vec();
    ascending.sort_by(f64::total_cmp);
    ascending
}

/// Where either distribution function jumps, and both functions from there on.
fn steps(a: &[f64], b: &[f64]) -> Vec<(f64, f64, f64)> {
    let (a, b) = (sorted(a), sorted(b));
    let mut all = sorted(&[a.as_slice(), b.as_slice()].concat());
    all.dedup();
    let below = |sample: &[f64], x: f64| sample.partition_point(|v| *v <= x) as f64 / sample.len() as f64;
    all.into_iter().map(|x| (x, below(&a, x), below(&b, x))).collect()
}

/// sup |F − G|, the two-sample statistic of Kolmogorov and Smirnov.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> f64 {
    steps(a, b).into_iter().map(|(_, f, g)| (f - g).abs()).fold(0.0, f64::max)
}

/// ∫ |F − G|, the Wasserstein-1 (earth mover's) distance, in the unit of the values.
pub fn wasserstein(a: &[f64], b: &[f64]) -> f64 {
    steps(a, b).windows(2).map(|w| (w[1].0 - w[0].0) * (w[0].1 - w[0].2).abs()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number, numbers};
    use super::*;

    /// Recorded with SciPy by `golden/statistics/diversity.py`.
    #[test]
    fn distances_meet_scipy() {
        let path = format!("{}/../../golden/statistics/diversity.json", env!("CARGO_MANIFEST_DIR"));
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in file["distances"].as_array().unwrap() {
            let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
            close(
                &[kolmogorov_smirnov(&a, &b), wasserstein(&a, &b)],
                &[number(&case["ks"]), number(&case["wasserstein"])],
                1e-12,
            );
        }
    }
}
