//! Tests that rest on signs alone: the sign test, and the permutation test that flips the signs of whole clusters.

use dpo_eval_rng::Stream;

use super::interval::binomial_cdf;

/// The exact two-sided sign test of as many positive and negative differences (zeros left out).
pub fn sign_test(positive: u64, negative: u64) -> f64 {
    (2.0 * binomial_cdf(positive.min(negative), positive + negative, 0.5)).min(1.0)
}

/// Above this many sums that differ from zero, sign patterns are sampled.
pub const EXACT: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignFlip {
    /// Two-sided.
    pub p: f64,
    /// How many sign patterns it rests on.
    pub patterns: u64,
    pub exact: bool,
}

/// The sign-flip (randomisation) test of Σ sums = 0 for sums of clusters (single differences are clusters of one), symmetric
/// around zero under the hypothesis: exact over all patterns up to [`EXACT`] of them, else `resamples` drawn patterns, the
/// seen one counted in (Phipson & Smyth 2010).
pub fn sign_flip(sums: &[f64], resamples: u64, seed: u64) -> SignFlip {
    let seen = sums.iter().sum::<f64>().abs();
    // Patterns with the same sum as the seen one differ from it by rounding.
    let bound = seen - 1e-12 * sums.iter().map(|s| s.abs()).sum::<f64>();
    let nonzero: Vec<f64> = sums.iter().copied().filter(|s| *s != 0.0).collect();
    if nonzero.len() <= EXACT {
        let patterns = 1u64 << nonzero.len();
        let extreme = count(&nonzero, 0.0, bound);
        return SignFlip { p: extreme as f64 / patterns as f64, patterns, exact: true };
    }
    let mut extreme = 0u64;
    for resample in 0..resamples {
        let mut stream = Stream::of(seed, "statistics/sign-flip", resample);
        let mut total = 0.0;
        for chunk in nonzero.chunks(64) {
            let mut signs = stream.next_u64();
            for sum in chunk {
                total += if signs & 1 == 1 { *sum } else { -*sum };
                signs >>= 1;
            }
        }
        extreme += u64::from(total.abs() >= bound);
    }
    SignFlip { p: (extreme + 1) as f64 / (resamples + 1) as f64, patterns: resamples, exact: false }
}

/// Patterns of the remaining signs whose total is at least `bound` away from zero.
fn count(sums: &[f64], so_far: f64, bound: f64) -> u64 {
    match sums {
        [] => u64::from(so_far.abs() >= bound),
        [first, rest @ ..] => count(rest, so_far + first, bound) + count(rest, so_far - first, bound),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, differences, vectors};
    use super::*;

    #[test]
    fn both_tests_meet_scipy() {
        let Some(file) = vectors("paired_tests") else { return };
        let (k, n) = (file["sign_test_k"].as_u64().unwrap(), file["sign_test_n"].as_u64().unwrap());
        close(&[sign_test(k, n - k)], &[file["sign_test_p"].as_f64().unwrap()], 1e-9);
        let differences = differences(&file);
        let positive = differences.iter().filter(|d| **d > 0.0).count() as u64;
        let negative = differences.iter().filter(|d| **d < 0.0).count() as u64;
        assert_eq!((positive, positive + negative), (k, n));
        // Zeros double both counts of the vector's 4096 patterns.
        let found = sign_flip(&differences, 0, 0);
        close(&[found.p], &[file["sign_flip_exact_p_two_sided"].as_f64().unwrap()], 1e-9);
        assert!(found.exact && found.patterns == 2048);
    }

    #[test]
    fn sampled_patterns_come_near_the_exact_ones() {
        let sums: Vec<f64> = (0..EXACT).map(|i| (i as f64 - 6.5) * 0.1).collect();
        let exact = sign_flip(&sums, 0, 0);
        // One more that hardly matters makes them sampled.
        let more: Vec<f64> = sums.iter().copied().chain([1e-9]).collect();
        let sampled = sign_flip(&more, 20_000, 7);
        assert!(exact.exact && !sampled.exact);
        assert!((exact.p - sampled.p).abs() < 0.01, "{exact:?} {sampled:?}");
        assert_ne!(sampled.p, sign_flip(&more, 20_000, 8).p);
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(sign_flip(&[0.0, 0.0], 10, 1).p, 1.0);
        assert_eq!(sign_test(0, 0), 1.0);
    }
}
