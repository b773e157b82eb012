//! Intervals of binomial proportions and of their differences.
//!
//! Sources: Wilson 1927; Clopper & Pearson 1934; Jeffreys prior as in Brown, Cai & DasGupta 2001; Newcombe 1998 (hybrid score,
//! methods 10 of both papers: independent and paired). For independent verdicts only: verdicts that share a prompt go
//! through [`mean::rate`](super::mean::rate).

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

/// p₁ − p₂ of two independent samples, each `(k, n)` (Newcombe 1998, hybrid score).
pub fn newcombe_independent(first: (u64, u64), second: (u64, u64), level: f64) -> Interval {
    newcombe(first, second, 0.0, level)
}

/// p₁ − p₂ of two verdicts on the same items (Newcombe 1998, paired): counts of items where both are right, only the first,
/// only the second, neither.
pub fn newcombe_paired(both: u64, first: u64, second: u64, neither: u64, level: f64) -> Interval {
    let n = both + first + second + neither;
    let (e, f, g, h) = (both as f64, first as f64, second as f64, neither as f64);
    let margins = (e + f) * (g + h) * (e + g) * (f + h);
    // Method 10 corrects a positive correlation for continuity.
    let association = e * h - f * g;
    let corrected = if association > 0.0 { (association - n as f64 / 2.0).max(0.0) } else { association };
    let phi = if margins > 0.0 { corrected / margins.sqrt() } else { 0.0 };
    newcombe((both + first, n), (both + second, n), phi, level)
}

fn newcombe(first: (u64, u64), second: (u64, u64), phi: f64, level: f64) -> Interval {
    let (p1, p2) = (first.0 as f64 / first.1 as f64, second.0 as f64 / second.1 as f64);
    let (one, two) = (wilson(first.0, first.1, level), wilson(second.0, second.1, level));
    let half = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
    let difference = p1 - p2;
    Interval {
        lower: difference - half(p1 - one.lower, two.upper - p2),
        upper: difference + half(one.upper - p1, p2 - two.lower),
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
        }
    }

    #[test]
    fn differences_of_independent_proportions_meet_statsmodels() {
        let Some(file) = vectors("proportions") else { return };
        for case in file["two_independent_diff"].as_array().unwrap() {
            let u = |name: &str| case[name].as_u64().unwrap();
            let found = newcombe_independent((u("k1"), u("n1")), (u("k2"), u("n2")), 1.0 - case["alpha"].as_f64().unwrap());
            close(&pair(found), &numbers(&case["newcomb"]), 1e-9);
        }
    }

    #[test]
    fn paired_differences_meet_newcombe() {
        let Some(file) = vectors("proportions") else { return };
        for case in file["mcnemar"].as_array().unwrap() {
            let cell = |i: usize, j: usize| case["table"][i][j].as_u64().unwrap();
            let expected = &case["newcombe_paired_diff"];
            let found = newcombe_paired(cell(0, 0), cell(0, 1), cell(1, 0), cell(1, 1), 0.95);
            close(&pair(found), &[expected["lower"].as_f64().unwrap(), expected["upper"].as_f64().unwrap()], 1e-9);
        }
    }

    proptest::proptest! {
        #[test]
        fn intervals_contain_the_point_and_mirror_when_sides_swap(n in 1u64..400, share in 0.0f64..=1.0) {
            let k = (share * n as f64).round() as u64;
            let p = k as f64 / n as f64;
            for method in [wilson, clopper_pearson] {
                let (here, there) = (method(k, n, 0.95), method(n - k, n, 0.95));
                proptest::prop_assert!(here.lower <= p && p <= here.upper);
                proptest::prop_assert!(0.0 <= here.lower && here.upper <= 1.0);
                proptest::prop_assert!((here.lower - (1.0 - there.upper)).abs() < 1e-12);
                proptest::prop_assert!(method(4 * k, 4 * n, 0.95).width() < here.width());
            }
        }
    }
}
