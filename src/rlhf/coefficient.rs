//! How much a nat of KL costs, where a KL is aimed at.

/// Of one step's miss, at most.
const LARGEST_MISS: f64 = 0.2;
/// K_β: how much of it β follows.
const RATE: f64 = 0.1;

/// β after a step whose completions lay `kl` nats from the reference: e = clip(KL / target − 1, ±0.2), β (1 + K_β e)
/// (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).
pub(crate) fn next(beta: f64, kl: f64, target: f64) -> f64 {
    beta * (1.0 + RATE * (kl / target - 1.0).clamp(-LARGEST_MISS, LARGEST_MISS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_costs_more_beyond_the_target_and_less_below_it_within_bounds() {
        assert_eq!(next(0.1, 3.0, 3.0), 0.1);
        assert!((next(0.1, 3.3, 3.0) - 0.1 * 1.01).abs() < 1e-12);
        assert!((next(0.1, 90.0, 3.0) - 0.1 * 1.02).abs() < 1e-12);
        assert!((next(0.1, 0.0, 3.0) - 0.1 * 0.98).abs() < 1e-12);
    }
}
