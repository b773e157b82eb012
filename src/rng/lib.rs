//! Addressed random streams (NUMERICS: ChaCha8, one stream per seed, purpose and index) and the samplers of this project.
//!
//! Nothing draws from a shared generator, so no draw depends on what ran before it. The samplers are ours because those of
//! the `rand` family may change between versions; golden values in the tests lock them.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of one purpose. `index` tells apart the epochs, prompts or samples of that purpose.
    pub fn of(seed: u64, purpose: &str, index: u64) -> Self {
        let address = format!("dpo-eval stream v1\n{seed}\n{purpose}\n{index}");
        Self(ChaCha8Rng::from_seed(Sha256::digest(address.as_bytes()).into()))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, without bias (Lemire 2019).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        assert!(n > 0, "an index below 0 can't be drawn");
        let n = n as u64;
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// Uniform in 0..n for each place, without bias: two draws from each 64 bits.
    ///
    /// # Panics
    /// When `n` is 0 or above 2³².
    pub fn fill_indices(&mut self, n: usize, out: &mut [u32]) {
        assert!(n > 0 && n <= 1 << 32, "an index below {n} can't be drawn as 32 bits");
        let n = n as u64;
        let threshold = (1u64 << 32) % n;
        let mut filled = 0;
        while filled < out.len() {
            let bits = self.next_u64();
            for half in [bits & 0xffff_ffff, bits >> 32] {
                let product = half * n;
                if product & 0xffff_ffff >= threshold && filled < out.len() {
                    out[filled] = (product >> 32) as u32;
                    filled += 1;
                }
            }
        }
    }

    pub fn bernoulli(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// An index drawn with probability proportional to its weight (non-negative, not all zero).
    ///
    /// # Panics
    /// When the weights don't have a positive finite sum.
    pub fn categorical(&mut self, weights: &[f64]) -> usize {
        let total: f64 = weights.iter().sum();
        assert!(total > 0.0 && total.is_finite(), "weights need a positive finite sum, not {total}");
        let mut left = self.uniform() * total;
        let mut last = 0;
        for (i, &w) in weights.iter().enumerate() {
            if w > 0.0 {
                if left < w {
                    return i;
                }
                left -= w;
                last = i;
            }
        }
        last
    }

    /// Standard normal (Box–Muller, with a portable libm).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
    }

    /// Fisher–Yates, from the last element down.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }

    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_index_and_repeat() {
        let draw = |s, p, i| Stream::of(s, p, i).next_u64();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        assert_ne!(draw(1, "a", 0), draw(2, "a", 0));
        assert_ne!(draw(1, "a", 0), draw(1, "b", 0));
        assert_ne!(draw(1, "a", 0), draw(1, "a", 1));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut s = Stream::of(7, "test", 0);
        let n = 200_000;
        let normals: Vec<f64> = (0..n).map(|_| s.normal()).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let var = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "{mean} {var}");
        let mut counts = [0usize; 3];
        for _ in 0..n {
            counts[s.categorical(&[1.0, 0.0, 3.0])] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((counts[2] as f64 / n as f64 - 0.75).abs() < 0.005);
    }

    #[test]
    fn many_indices_are_uniform() {
        let mut drawn = vec![0; 300_000];
        Stream::of(1, "indices", 0).fill_indices(3, &mut drawn);
        let counts = [0, 1, 2].map(|i| drawn.iter().filter(|d| **d == i).count() as f64);
        // 4 standard deviations.
        assert!(counts.iter().all(|c| (c - 100_000.0).abs() < 1033.0), "{counts:?}");
    }

    #[test]
    fn samplers_are_locked() {
        let mut s = Stream::of(20_240_607, "golden", 3);
        let permutation = s.permutation(8);
        let values = (s.index(1000), s.uniform().to_bits(), s.normal().to_bits(), s.bernoulli(0.5));
        let mut indices = [0; 5];
        s.fill_indices(1000, &mut indices);
        insta::assert_debug_snapshot!((permutation, values, indices));
    }
}
