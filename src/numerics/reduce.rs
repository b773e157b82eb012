//! Row reductions in the one fixed order: sixteen lanes ascending, then a tree (the arithmetic contract, point 3).
//!
//! [`lanes`] holds the kernels themselves, to be called inside other kernels.

use super::simd::{F32x16, LANES, dispatch};

pub mod lanes {
    use super::{F32x16, LANES};

    /// Σ x.
    #[inline(always)]
    pub fn sum<V: F32x16>(xs: &[f32]) -> f32 {
        let mut sums = V::splat(0.0);
        let chunks = xs.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            sums = sums + V::load(chunk);
        }
        // Adding −0 changes no lane.
        (sums + V::load_part(rest, -0.0)).tree_sum()
    }

    /// Σ x², fused.
    #[inline(always)]
    pub fn sum_squares<V: F32x16>(xs: &[f32]) -> f32 {
        let mut sums = V::splat(0.0);
        let chunks = xs.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            let x = V::load(chunk);
            sums = x.fma(x, sums);
        }
        // Sums of squares are never −0, so adding +0 changes no lane.
        let x = V::load_part(rest, 0.0);
        x.fma(x, sums).tree_sum()
    }

    /// Σ x y, fused.
    #[inline(always)]
    pub fn dot<V: F32x16>(xs: &[f32], ys: &[f32]) -> f32 {
        assert_eq!(xs.len(), ys.len(), "a dot product of two lengths");
        let mut sums = V::splat(0.0);
        let whole = xs.len() - xs.len() % LANES;
        for i in (0..whole).step_by(LANES) {
            sums = V::load(&xs[i..]).fma(V::load(&ys[i..]), sums);
        }
        // −0 · 0 = −0, and adding that changes no lane.
        V::load_part(&xs[whole..], -0.0).fma(V::load_part(&ys[whole..], 0.0), sums).tree_sum()
    }

    /// The largest element, NaN passed over; −∞ of nothing.
    #[inline(always)]
    pub fn max<V: F32x16>(xs: &[f32]) -> f32 {
        let mut most = V::splat(f32::NEG_INFINITY);
        let chunks = xs.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            most = V::load(chunk).max(most);
        }
        V::load_part(rest, f32::NEG_INFINITY).max(most).tree_max()
    }
}

use lanes::{dot as dot_kernel, max as max_kernel, sum as sum_kernel, sum_squares as sum_squares_kernel};

/// The vector type only chooses the instructions that the compiler may use for the binary64 lanes.
#[allow(clippy::extra_unused_type_parameters, reason = "dispatch names the instructions by it")]
#[inline(always)]
fn sum_squares_f64_kernel<V: F32x16>(xs: &[f32]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let chunks = xs.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            sums[l] += sums[l + half];
        }
    }
    sums[0]
}

dispatch! {
    /// Σ x.
    pub fn sum, sum_with(xs: &[f32]) -> f32 = sum_kernel;
    /// Σ x², fused.
    pub fn sum_squares, sum_squares_with(xs: &[f32]) -> f32 = sum_squares_kernel;
    /// Σ x y, fused, over two slices of one length.
    pub fn dot, dot_with(xs: &[f32], ys: &[f32]) -> f32 = dot_kernel;
    /// The largest element, NaN passed over; −∞ of nothing.
    pub fn max, max_with(xs: &[f32]) -> f32 = max_kernel;
    /// Σ x² in binary64 (each square is exact there).
    pub fn sum_squares_f64, sum_squares_f64_with(xs: &[f32]) -> f64 = sum_squares_f64_kernel;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{isa, reference};

    fn same(x: f32, y: f32) -> bool {
        x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_definition(
            pairs in prop::collection::vec((prop::num::f32::ANY, prop::num::f32::ANY), 0..100),
            ordinary in prop::collection::vec((-2.0f32..2.0, -2.0f32..2.0), 0..300),
        ) {
            for pairs in [pairs, ordinary] {
                let (xs, ys): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
                for isa in isa::available() {
                    prop_assert!(same(sum_with(isa, &xs), reference::sum(&xs)), "{isa} sum");
                    prop_assert!(same(sum_squares_with(isa, &xs), reference::sum_squares(&xs)), "{isa} sum_squares");
                    prop_assert!(same(dot_with(isa, &xs, &ys), reference::dot(&xs, &ys)), "{isa} dot");
                    prop_assert!(same(max_with(isa, &xs), reference::max(&xs)), "{isa} max");
                    let (fast, expected) = (sum_squares_f64_with(isa, &xs), reference::sum_squares_f64(&xs));
                    prop_assert!(fast.to_bits() == expected.to_bits() || fast.is_nan() && expected.is_nan(), "{isa} f64");
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_summed_exactly() {
        let xs: Vec<f32> = (1..=100).map(|i| i as f32).collect();
        assert_eq!(sum(&xs), 5050.0);
        assert_eq!(sum_squares(&xs), 338_350.0);
        assert_eq!(dot(&xs, &xs), 338_350.0);
        assert_eq!(max(&xs), 100.0);
        assert_eq!(sum_squares_f64(&xs), 338_350.0);
    }

    #[test]
    fn nothing_sums_to_zero_and_has_no_largest_element() {
        assert_eq!(sum(&[]).to_bits(), 0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn a_lane_that_underflowed_to_minus_zero_survives_the_tail() {
        let (mut xs, mut ys) = (vec![0.0; 17], vec![0.0; 17]);
        (xs[1], ys[1]) = (-1e-30, 1e-30);
        for isa in isa::available() {
            assert_eq!(dot_with(isa, &xs, &ys).to_bits(), reference::dot(&xs, &ys).to_bits());
        }
    }
}
