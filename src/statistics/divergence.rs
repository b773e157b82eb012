//! Kullback–Leibler divergence: exact, and estimated from samples of the first distribution.

/// Estimates from one sample's log-probabilities under the distribution that it came from and the other one, r = other / own
/// (Schulman 2020, "Approximating KL divergence").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimators {
    /// −log r: unbiased, wide.
    pub k1: f64,
    /// (log r)² / 2: biased, narrow, never negative.
    pub k2: f64,
    /// (r − 1) − log r: unbiased, never negative. Of whole sequences r explodes; use it per token.
    pub k3: f64,
}

pub fn estimators(own: f64, other: f64) -> Estimators {
    let log_ratio = other - own;
    Estimators { k1: -log_ratio, k2: 0.5 * log_ratio * log_ratio, k3: libm::expm1(log_ratio) - log_ratio }
}

/// Σ p log (p / q), nats; infinite where q misses what p has.
pub fn exact(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * libm::log(p / q)).sum()
}

/// (KL(p ‖ m) + KL(q ‖ m)) / 2, m the mean of both, nats: at most log 2.
pub fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let middle: Vec<f64> = p.iter().zip(q).map(|(p, q)| (p + q) / 2.0).collect();
    (exact(p, &middle) + exact(q, &middle)) / 2.0
}

/// −Σ p log p, nats.
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().filter(|p| **p > 0.0).map(|p| p * libm::log(*p)).sum::<f64>()
}

/// KL of the best of `n` samples from what they were drawn from, log n − (n − 1) / n: exact without ties in the score, else an upper
/// bound (Stiennon et al. 2020, appendix G.3; Beirami et al. 2024).
pub fn best_of(n: u64) -> f64 {
    let n = n as f64;
    libm::log(n) - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::super::mean::Clustered;
    use super::super::reference::{close, number, numbers, vectors};
    use super::*;

    #[test]
    fn estimators_meet_the_reference() {
        let Some(file) = vectors("overoptimization_dpo") else { return };
        let file = &file["kl_estimators"];
        let (policy, reference) = (numbers(&file["logp_policy"]), numbers(&file["logp_ref"]));
        let all: Vec<Estimators> = policy.iter().zip(&reference).map(|(p, r)| estimators(*p, *r)).collect();
        let of = |value: fn(&Estimators) -> f64| Clustered::new(all.iter().map(value).enumerate());
        let (k1, k2, k3) = (of(|e| e.k1), of(|e| e.k2), of(|e| e.k3));
        let found = [k1.mean(), k2.mean(), k3.mean(), k1.standard_error().unwrap(), k3.standard_error().unwrap()];
        close(&found, &["k1_mean", "k2_mean", "k3_mean", "k1_sem", "k3_sem"].map(|name| number(&file[name])), 1e-9);
        let tokens: f64 = numbers(&file["lengths"]).iter().sum();
        close(&[k1.mean() * policy.len() as f64 / tokens], &[number(&file["k1_per_token"])], 1e-9);
    }

    #[test]
    fn exact_divergences_meet_the_reference() {
        let Some(file) = vectors("overoptimization_dpo") else { return };
        let exactly = &file["kl_exact"];
        let (p, q) = (numbers(&exactly["p"]), numbers(&exactly["q"]));
        let found = [exact(&p, &q), exact(&q, &p), jensen_shannon(&p, &q), entropy(&p)];
        close(&found, &["kl_p_q", "kl_q_p", "js_nats", "entropy_p"].map(|name| number(&exactly[name])), 1e-9);
        for case in file["best_of_n_kl_upper"].as_array().unwrap() {
            close(&[best_of(case["n"].as_u64().unwrap())], &[number(&case["kl"])], 1e-9);
        }
    }
}
