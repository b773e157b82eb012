//! Rotary position embedding (Su et al. 2021) in Hugging Face's layout: element i pairs with element i + head_dim / 2, or, where only
//! the first elements of a head are turned, with element i + half of these.

use super::buffer::Buffer;
use super::device::{self, elementwise};
use super::parallel::for_each_rows;
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

/// Cosines and sines for positions from 0: (positions, half) each.
pub struct Rotary {
    head_dim: usize,
    /// Pairs of a head that are turned.
    half: usize,
    cos: Buffer,
    sin: Buffer,
}

/// θ^(−2i / head_dim) for each pair i, radians a position.
pub fn frequencies(head_dim: usize, theta: f64) -> Vec<f64> {
    (0..head_dim / 2).map(|i| libm::pow(theta, -((2 * i) as f64) / head_dim as f64)).collect()
}

dispatch! {
    pub(super) fn turn, turn_with(table: &Rotary, x: &mut [f32], width: usize, positions: &[u32], direction: f32) = turn_kernel;
}

impl Rotary {
    /// Angles position · θ^(−2i / head_dim) in binary64 by a portable libm, rounded to binary32 once (NUMERICS 4).
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        Self::of_frequencies(positions, head_dim, &frequencies(head_dim, theta))
    }

    /// Angles position · frequency, one frequency for each pair that is turned: the first elements of a head.
    ///
    /// # Panics
    /// When a head has fewer pairs.
    pub fn of_frequencies(positions: usize, head_dim: usize, frequencies: &[f64]) -> Self {
        let half = frequencies.len();
        assert!(2 * half <= head_dim, "{half} pairs in a head of {head_dim}");
        let table = |f: fn(f64) -> f64| -> Buffer {
            let values: Vec<f32> = (0..positions).flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32)).collect();
            Buffer::from(values)
        };
        Self { head_dim, half, cos: table(libm::cos), sin: table(libm::sin) }
    }

    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Turns the heads of `x`: (rows, heads · head_dim) in place by their row's position.
    pub fn forward(&self, x: &mut [f32], width: usize, positions: &[u32]) {
        self.turn_by(x, width, positions, 1.0);
    }

    /// The gradient of [`Self::forward`] in place: the same turn backwards.
    pub fn backward(&self, dx: &mut [f32], width: usize, positions: &[u32]) {
        self.turn_by(dx, width, positions, -1.0);
    }

    fn turn_by(&self, x: &mut [f32], width: usize, positions: &[u32], direction: f32) {
        if let Some(device) = device::active() {
            let tables = [&self.cos, &self.sin].map(|table| &table[..]);
            return elementwise::turn(device, tables, [self.head_dim, self.half], x, width, positions, direction);
        }
        for_each_rows(x, width, 2 * width, |r, x| turn(self, x, width, &positions[r..], direction));
    }
}

#[inline(always)]
fn turn_kernel<V: F32x16>(table: &Rotary, x: &mut [f32], width: usize, positions: &[u32], direction: f32) {
    let half = table.half;
    for (row, position) in x.chunks_exact_mut(width).zip(positions) {
        let at = *position as usize * half;
        let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
        for head in row.chunks_exact_mut(table.head_dim) {
            let (first, second) = head[..2 * half].split_at_mut(half);
            for i in starts(half) {
                let (a, b) = (load::<V>(first, i, 0.0), load::<V>(second, i, 0.0));
                let (c, s) = (load::<V>(cos, i, 0.0), load::<V>(sin, i, 0.0) * V::splat(direction));
                store(a.fma(c, (b * s).negate()), first, i);
                store(b.fma(c, a * s), second, i);
            }
        }
    }
}
