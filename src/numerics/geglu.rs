//! GeGLU (Shazeer 2020) with the approximated GELU, as in Gemma: gelu(gate) · up, elementwise between the products of the gated MLP.

use super::gelu::{Gelu, weight_and_slope};
use super::parallel::{self, for_each_rows};
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

dispatch! {
    pub(super) fn forward_part, forward_part_with(gate: &[f32], up: &[f32], out: &mut [f32]) = forward_kernel;
    pub(super) fn backward_part, backward_part_with(gate: &mut [f32], up: &mut [f32], dout: &mut [f32]) = backward_kernel;
}

/// Roughly the elementary steps of an element (its exponential, mostly).
const WORK: usize = 16;

/// `out` ← gelu(gate) · up.
pub fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for_each_rows(out, 1, WORK, |i, out| forward_part(&gate[i..], &up[i..], out));
}

/// Gradients of [`forward`] in place: `gate` becomes dL/dgate, `up` becomes dL/dup, `dout` becomes the forward's output again.
pub fn backward(gate: &mut [f32], up: &mut [f32], dout: &mut [f32]) {
    let (threads, n) = (parallel::threads(), dout.len());
    if threads == 1 || n < 1 << 14 {
        return backward_part(gate, up, dout);
    }
    use rayon::prelude::*;
    let piece = n.div_ceil(4 * threads);
    let pieces = gate.par_chunks_mut(piece).zip(up.par_chunks_mut(piece)).zip(dout.par_chunks_mut(piece));
    pieces.for_each(|((gate, up), dout)| backward_part(gate, up, dout));
}

#[inline(always)]
fn forward_kernel<V: F32x16>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
    for i in starts(out.len()) {
        let g = load::<V>(gate, i, 0.0);
        store((g * weight_and_slope(Gelu::Tanh, g).0) * load::<V>(up, i, 0.0), out, i);
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(gate: &mut [f32], up: &mut [f32], dout: &mut [f32]) {
    for i in starts(dout.len()) {
        let (g, u, d) = (load::<V>(gate, i, 0.0), load::<V>(up, i, 0.0), load::<V>(dout, i, 0.0));
        let (weight, slope) = weight_and_slope(Gelu::Tanh, g);
        let activated = g * weight;
        store((d * u) * slope, gate, i);
        store(d * activated, up, i);
        store(activated * u, dout, i);
    }
}
