//! Intervals of binomial proportions.
//!
//! Sources: Wilson 1927; Clopper & Pearson 1934; Jeffreys prior as in Brown, Cai & DasGupta 2001; Agresti & Coull 1998. For
//! independent verdicts only: verdicts that share a prompt go through [`mean::rate`](super::mean::rate).

use super::interval::{Interval, beta_quantile, z};

/// Wilson's score interval for `k` of `n`.
pub fn wilson(k: u64, n: u64, level: f64) -> Interval {
    if n == 0 {
        return Interval { lower: 0.0, upper: 1.0 };
    }
    score(k as f64 / n as f64, n as f64, z(level))
}

/// Wilson's interval for a proportion `p` seen in an effective number `n` of trials, with the given critical value.
pub fn score(p: f64, n: f64, critical: f64) -> Interval {
    let z2 = critical * critical;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = critical / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // The formula reaches p itself at both ends of the range, but rounding may miss it.
    let interval = Interval::around(centre, half).within(0.0, 1.0);
    Interval { lower: interval.lower.min(p), upper: interval.upper.max(p) }
}

/// The exact interval: never covers less than `level`.
pub fn clopper_pearson(k: u64, n: u64, level: f64) -> Interval {
    let tail = (1.0 - level) / 2.0;
    let (hits, misses) = (k as f64, (n - k) as f64);
    Interval {
        lower: if k == 0 { 0.0 } else { beta_quantile(tail, hits, misses + 1.0) },
        upper: if k == n { 1.0 } else { beta_quantile(1.0 - tail, hits + 1.0, misses) },
    }
}

/// Equal-tailed, with Jeffreys' prior Beta(½, ½); the ends are not forced to 0 and 1.
pub fn jeffreys(k: u64, n: u64, level: f64) -> Interval {
    let tail = (1.0 - level) / 2.0;
    let (a, b) = (k as f64 + 0.5, (n - k) as f64 + 0.5);
    Interval { lower: beta_quantile(tail, a, b), upper: beta_quantile(1.0 - tail, a, b) }
}

/// Agresti & Coull 1998: Wald's interval around Wilson's centre, on n + z² trials.
pub fn agresti_coull(k: u64, n: u64, level: f64) -> Interval {
    let critical = z(level);
    let trials = n as f64 + critical * critical;
    let centre = (k as f64 + critical * critical / 2.0) / trials;
    Interval::around(centre, critical * (centre * (1.0 - centre) / trials).sqrt()).within(0.0, 1.0)
}

/// Wilson's interval with a continuity correction (Newcombe 1998, method 4).
pub fn wilson_continuity(k: u64, n: u64, level: f64) -> Interval {
    let (z, n_, p) = (z(level), n as f64, k as f64 / n as f64);
    let (z2, q) = (z * z, 1.0 - p);
    let lower = 2.0 * n_ * p + z2 - 1.0 - z * (z2 - 2.0 - 1.0 / n_ + 4.0 * p * (n_ * q + 1.0)).max(0.0).sqrt();
    let upper = 2.0 * n_ * p + z2 + 1.0 + z * (z2 + 2.0 - 1.0 / n_ + 4.0 * p * (n_ * q - 1.0)).max(0.0).sqrt();
    let scale = 2.0 * (n_ + z2);
    Interval {
        lower: if k == 0 { 0.0 } else { (lower / scale).max(0.0) },
        upper: if k == n { 1.0 } else { (upper / scale).min(1.0) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, numbers, vectors};
    use super::*;

    fn pair(interval: Interval) -> Vec<f64> {
        vec![interval.lower, interval.upper]
    }

    #[test]
    fn single_proportions_meet_statsmodels() {
        let Some(file) = vectors("proportions") else { return };
        for case in file["single"].as_array().unwrap() {
            let (k, n) = (case["k"].as_u64().unwrap(), case["n"].as_u64().unwrap());
            let level = 1.0 - case["alpha"].as_f64().unwrap();
            close(&pair(wilson(k, n, level)), &numbers(&case["wilson"]), 1e-9);
            close(&pair(clopper_pearson(k, n, level)), &numbers(&case["clopper_pearson"]), 1e-9);
            close(&pair(jeffreys(k, n, level)), &numbers(&case["jeffreys"]), 1e-9);
            close(&pair(agresti_coull(k, n, level)), &numbers(&case["agresti_coull"]), 1e-9);
            close(&pair(wilson_continuity(k, n, level)), &numbers(&case["wilson_cc_formula"]), 1e-9);
        }
    }

    proptest::proptest! {
        #[test]
        fn intervals_contain_the_point_and_mirror_when_sides_swap(n in 1u64..400, share in 0.0f64..=1.0) {
            let k = (share * n as f64).round() as u64;
            let p = k as f64 / n as f64;
            for method in [wilson, clopper_pearson, agresti_coull, wilson_continuity] {
                let (here, there) = (method(k, n, 0.95), method(n - k, n, 0.95));
                proptest::prop_assert!(here.lower <= p && p <= here.upper);
                proptest::prop_assert!(0.0 <= here.lower && here.upper <= 1.0);
                proptest::prop_assert!((here.lower - (1.0 - there.upper)).abs() < 1e-12);
                proptest::prop_assert!(method(4 * k, 4 * n, 0.95).width() < here.width());
            }
        }
    }
}
