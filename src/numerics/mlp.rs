//! Gated activations (Shazeer 2020), elementwise between the products of the gated MLP: f(gate) · up.

use super::device::{self, elementwise};
use super::elementary::lanes::sigmoid;
use super::gelu::{self, Gelu};
use super::parallel::{self, for_each_rows};
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

/// What f is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gated {
    /// silu(x) = x σ(x): Llama and its kin.
    SwiGlu,
    /// The approximated GELU, as in Gemma.
    GeGlu,
}

dispatch! {
    pub(super) fn forward_part, forward_part_with(form: Gated, gate: &[f32], up: &[f32], out: &mut [f32]) = forward_kernel;
    pub(super) fn backward_part, backward_part_with(form: Gated, gate: &mut [f32], up: &mut [f32], dout: &mut [f32], again: bool) = backward_kernel;
}

/// Roughly the elementary steps of an element (its exponential, mostly).
const WORK: usize = 16;

/// `out` ← f(gate) · up.
pub fn forward(form: Gated, gate: &[f32], up: &[f32], out: &mut [f32]) {
    if let Some(device) = device::active() {
        return elementwise::gated_forward(device, form, gate, up, out);
    }
    for_each_rows(out, 1, WORK, |i, out| forward_part(form, &gate[i..], &up[i..], out));
}

/// Gradients of [`forward`] in place: `gate` becomes dL/dgate, `up` becomes dL/dup, and `dout` the forward's output
/// again, where that is wanted.
pub fn backward(form: Gated, gate: &mut [f32], up: &mut [f32], dout: &mut [f32], again: bool) {
    if let Some(device) = device::active() {
        return elementwise::gated_backward(device, form, gate, up, dout, again);
    }
    let (threads, n) = (parallel::threads(), dout.len());
    if threads == 1 || n < 1 << 14 {
        return backward_part(form, gate, up, dout, again);
    }
    use rayon::prelude::*;
    let piece = n.div_ceil(4 * threads);
    let pieces = gate.par_chunks_mut(piece).zip(up.par_chunks_mut(piece)).zip(dout.par_chunks_mut(piece));
    pieces.for_each(|((gate, up), dout)| backward_part(form, gate, up, dout, again));
}

/// What x is multiplied by to make silu(x), and the derivative of the product, σ(x) · (1 + x · (1 − σ(x))).
#[inline(always)]
fn silu<V: F32x16>(x: V) -> (V, V) {
    let s = sigmoid(x);
    let silu = x * s;
    (s, s.fma(silu.negate(), silu + s))
}

#[inline(always)]
fn gelu<V: F32x16>(x: V) -> (V, V) {
    gelu::weight_and_slope(Gelu::Tanh, x)
}

#[inline(always)]
fn forward_kernel<V: F32x16>(form: Gated, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match form {
        Gated::SwiGlu => forward_by::<V>(|x| silu(x).0, gate, up, out),
        Gated::GeGlu => forward_by::<V>(|x| gelu(x).0, gate, up, out),
    }
}

#[inline(always)]
fn forward_by<V: F32x16>(weight: impl Fn(V) -> V, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
    for i in starts(out.len()) {
        let g = load::<V>(gate, i, 0.0);
        store((g * weight(g)) * load::<V>(up, i, 0.0), out, i);
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(form: Gated, gate: &mut [f32], up: &mut [f32], dout: &mut [f32], again: bool) {
    match form {
        Gated::SwiGlu => backward_by::<V>(|x| silu(x), gate, up, dout, again),
        Gated::GeGlu => backward_by::<V>(|x| gelu(x), gate, up, dout, again),
    }
}

#[inline(always)]
fn backward_by<V: F32x16>(form: impl Fn(V) -> (V, V), gate: &mut [f32], up: &mut [f32], dout: &mut [f32], again: bool) {
    for i in starts(dout.len()) {
        let (g, u, d) = (load::<V>(gate, i, 0.0), load::<V>(up, i, 0.0), load::<V>(dout, i, 0.0));
        let (weight, slope) = form(g);
        let activated = g * weight;
        store((d * u) * slope, gate, i);
        store(d * activated, up, i);
        if again {
            store(activated * u, dout, i);
        }
    }
}
