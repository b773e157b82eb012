//! GELU (Hendrycks and Gimpel 2016), elementwise between the two products of an MLP.

use super::device::{self, elementwise};
use super::elementary::lanes::{erf, exp, sigmoid};
use super::parallel::{self, for_each_rows};
use super::reference::{DENSITY, GELU_TANH};
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

/// The two forms that models use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// x Φ(x) by the error function: Hugging Face's `gelu`.
    Exact,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2: Hugging Face's `gelu_new` and `gelu_pytorch_tanh`.
    Tanh,
}

dispatch! {
    pub(super) fn forward_part, forward_part_with(form: Gelu, x: &[f32], out: &mut [f32]) = forward_kernel;
    pub(super) fn backward_part, backward_part_with(form: Gelu, x: &mut [f32], dout: &mut [f32]) = backward_kernel;
}

/// Roughly the elementary steps of an element (its exponential, mostly).
const WORK: usize = 16;

/// `out` ← gelu(x).
pub fn forward(form: Gelu, x: &[f32], out: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::gelu_forward(device, form, x, out);
    }
    for_each_rows(out, 1, WORK, |i, out| forward_part(form, &x[i..], out));
}

/// The gradient of [`forward`] in place: `x` becomes dL/dx, `dout` becomes the forward's output again.
pub fn backward(form: Gelu, x: &mut [f32], dout: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::gelu_backward(device, form, x, dout);
    }
    let (threads, n) = (parallel::threads(), dout.len());
    if threads == 1 || n < 1 << 14 {
        return backward_part(form, x, dout);
    }
    use rayon::prelude::*;
    let piece = n.div_ceil(4 * threads);
    let pieces = x.par_chunks_mut(piece).zip(dout.par_chunks_mut(piece));
    pieces.for_each(|(x, dout)| backward_part(form, x, dout));
}

/// What x is multiplied by, and the derivative of the product.
#[inline(always)]
pub(super) fn weight_and_slope<V: F32x16>(form: Gelu, x: V) -> (V, V) {
    match form {
        Gelu::Exact => {
            let half = V::splat(0.5);
            let cdf = erf(x * V::splat(std::f32::consts::FRAC_1_SQRT_2)).fma(half, half);
            let density = exp((x * x) * V::splat(-0.5)) * V::splat(DENSITY);
            (cdf, x.fma(density, cdf))
        }
        Gelu::Tanh => {
            let (one, linear, cubic) = (V::splat(1.0), V::splat(GELU_TANH[0]), V::splat(GELU_TANH[1]));
            let s = sigmoid(x * (x * x).fma(cubic, linear));
            let slope = (x * x).fma(V::splat(3.0 * GELU_TANH[1]), linear);
            (s, ((x * s) * (one - s)).fma(slope, s))
        }
    }
}

#[inline(always)]
fn forward_kernel<V: F32x16>(form: Gelu, x: &[f32], out: &mut [f32]) {
    let x = &x[..out.len()];
    for i in starts(out.len()) {
        let x = load::<V>(x, i, 0.0);
        store(x * weight_and_slope(form, x).0, out, i);
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(form: Gelu, x: &mut [f32], dout: &mut [f32]) {
    for i in starts(dout.len()) {
        let at = load::<V>(x, i, 0.0);
        let (weight, slope) = weight_and_slope(form, at);
        store(load::<V>(dout, i, 0.0) * slope, x, i);
        store(at * weight, dout, i);
    }
}
