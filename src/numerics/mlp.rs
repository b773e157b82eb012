//! SwiGLU (Shazeer 2020): silu(gate) · up, elementwise between the products of the gated MLP.

use super::interim::sigmoid;
use super::parallel::for_each_piece;

/// Elements that one pass keeps in the first-level cache.
const BLOCK: usize = 1024;

/// `out` ← silu(gate) · up = (gate · σ(gate)) · up.
pub(crate) fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for_each_piece(out, BLOCK, |i, out| {
        let (gate, up) = (&gate[i * BLOCK..][..out.len()], &up[i * BLOCK..][..out.len()]);
        out.copy_from_slice(gate);
        sigmoid(out);
        for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
            *y = (g * *y) * u;
        }
    });
}

/// Gradients of [`forward`]. `dout` becomes dL/dup and `out` becomes the forward's output again; returns dL/dgate in `dgate`.
///
/// d silu(g)/dg = σ(g) · (1 + g · (1 − σ(g))).
pub(crate) fn backward(gate: &[f32], up: &[f32], dout: &mut [f32], out: &mut [f32], dgate: &mut [f32]) {
    dgate.copy_from_slice(gate);
    sigmoid(dgate);
    for i in 0..gate.len() {
        let (g, u, s, d) = (gate[i], up[i], dgate[i], dout[i]);
        let silu = g * s;
        out[i] = silu * u;
        dout[i] = d * silu;
        dgate[i] = (d * u) * s.mul_add(-silu, silu + s);
    }
}
