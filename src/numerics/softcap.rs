//! Soft-capping of logits: cap · tanh(x / cap) (Gemma Team 2024, arXiv 2408.00118, section 2).

use super::device::{self, elementwise};
use super::elementary::lanes::tanh;
use super::parallel::for_each_rows;
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

dispatch! {
    pub(super) fn forward_part, forward_part_with(cap: f32, x: &mut [f32]) = forward_kernel;
    pub(super) fn backward_part, backward_part_with(cap: f32, y: &[f32], dy: &mut [f32]) = backward_kernel;
}

/// Roughly the elementary steps of an element (its exponential, mostly).
const WORK: usize = 16;

/// `x` ← cap · tanh(x / cap).
pub fn forward(cap: f32, x: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::softcap_forward(device, cap, x);
    }
    for_each_rows(x, 1, WORK, |_, x| forward_part(cap, x));
}

/// The gradient of [`forward`], whose values were `y`: `dy` becomes dL/dx.
pub fn backward(cap: f32, y: &[f32], dy: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::softcap_backward(device, cap, y, dy);
    }
    for_each_rows(dy, 1, 2, |i, dy| backward_part(cap, &y[i..], dy));
}

/// cap · tanh(x / cap) of a vector.
#[inline(always)]
pub(super) fn capped<V: F32x16>(x: V, cap: V) -> V {
    tanh(x / cap) * cap
}

/// The derivative of [`capped`] where its value is `y`: 1 − (y / cap)².
#[inline(always)]
pub(super) fn slope<V: F32x16>(y: V, cap: V) -> V {
    let t = y / cap;
    t.fma(t.negate(), V::splat(1.0))
}

#[inline(always)]
fn forward_kernel<V: F32x16>(cap: f32, x: &mut [f32]) {
    let cap = V::splat(cap);
    for i in starts(x.len()) {
        store(capped(load::<V>(x, i, 0.0), cap), x, i);
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(cap: f32, y: &[f32], dy: &mut [f32]) {
    let (cap, y) = (V::splat(cap), &y[..dy.len()]);
    for i in starts(dy.len()) {
        store(load::<V>(dy, i, 0.0) * slope(load::<V>(y, i, 0.0), cap), dy, i);
    }
}
