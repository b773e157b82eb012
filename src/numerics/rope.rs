//! Rotary position embedding (Su et al. 2021) in Hugging Face's layout: element i pairs with element i + head_dim / 2.

use super::parallel::for_each_piece;

/// Cosines and sines for positions from 0: (positions, head_dim / 2) each.
pub(crate) struct Rotary {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// Angles position · θ^(−2i / head_dim) in binary64 by a portable libm, rounded to binary32 once (NUMERICS 4).
    pub(crate) fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| libm::pow(theta, -((2 * i) as f64) / head_dim as f64)).collect();
        let table = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect()
        };
        Self { half, cos: table(libm::cos), sin: table(libm::sin) }
    }

    /// Turns the heads of `x`: (rows, heads · head_dim) in place by their row's position.
    pub(crate) fn forward(&self, x: &mut [f32], width: usize, positions: &[u32]) {
        self.turn(x, width, positions, 1.0);
    }

    /// The gradient of [`Self::forward`] in place: the same turn backwards.
    pub(crate) fn backward(&self, dx: &mut [f32], width: usize, positions: &[u32]) {
        self.turn(dx, width, positions, -1.0);
    }

    fn turn(&self, x: &mut [f32], width: usize, positions: &[u32], direction: f32) {
        let half = self.half;
        for_each_piece(x, width, |r, row| {
            let at = positions[r] as usize * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            for head in row.chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b, c, s) = (first[i], second[i], cos[i], direction * sin[i]);
                    first[i] = a.mul_add(c, -(b * s));
                    second[i] = b.mul_add(c, a * s);
                }
            }
        });
    }
}
