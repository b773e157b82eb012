//! The linear map y = x Wᵀ and its gradients, as matrix products (NUMERICS 1 and 2).
//!
//! Weights have Hugging Face's layout (outputs, inputs). Rows are the tokens of a packed batch.

use super::gemm::{MatRef, Prepared, gemm, gemm_prepared};
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

dispatch! {
    /// `dbias`: (outputs,) += the rows of `dy`: (rows, outputs), one after the other.
    pub fn backward_bias, backward_bias_with(dy: &[f32], dbias: &mut [f32]) = bias_kernel;
}

/// `y`: (rows, outputs) ← `x`: (rows, inputs) times `weight`ᵀ, added to what `y` holds when `accumulate`.
pub fn forward(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32], accumulate: bool) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let b = MatRef::rows(weight, inputs).transposed();
    gemm(rows, outputs, inputs, MatRef::rows(x, inputs), b, y, outputs, accumulate);
}

/// Weights (outputs, inputs) prepared for [`forward_prepared`].
pub fn prepare(weight: &[f32], inputs: usize) -> Prepared {
    Prepared::new(MatRef::rows(weight, inputs).transposed(), inputs, weight.len() / inputs)
}

/// [`forward`] by prepared weights, with the same bits: faster for few rows.
pub fn forward_prepared(x: &[f32], weight: &Prepared, y: &mut [f32], accumulate: bool) {
    let rows = x.len() / weight.depth();
    gemm_prepared(rows, MatRef::rows(x, weight.depth()), weight, y, weight.columns(), accumulate);
}

/// [`forward`] plus `bias`: (outputs,). The chain of each element starts from its bias.
pub fn forward_biased(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize, y: &mut [f32]) {
    y.chunks_exact_mut(bias.len()).for_each(|y| y.copy_from_slice(bias));
    forward(x, weight, inputs, y, true);
}

/// `dx`: (rows, inputs) ← `dy`: (rows, outputs) times `weight`, added to what `dx` holds when `accumulate`.
pub fn backward_input(dy: &[f32], weight: &[f32], inputs: usize, dx: &mut [f32], accumulate: bool) {
    let outputs = weight.len() / inputs;
    let rows = dy.len() / outputs;
    gemm(rows, inputs, outputs, MatRef::rows(dy, outputs), MatRef::rows(weight, inputs), dx, inputs, accumulate);
}

/// `dweight`: (outputs, inputs) += `dy`ᵀ x: one chain over the rows for each element, continued from what `dweight` holds.
pub fn backward_weight(dy: &[f32], x: &[f32], inputs: usize, dweight: &mut [f32]) {
    let (rows, outputs) = (x.len() / inputs, dweight.len() / inputs);
    let a = MatRef::rows(dy, outputs).transposed();
    gemm(outputs, inputs, rows, a, MatRef::rows(x, inputs), dweight, inputs, true);
}

#[inline(always)]
fn bias_kernel<V: F32x16>(dy: &[f32], dbias: &mut [f32]) {
    for dy in dy.chunks_exact(dbias.len()) {
        for i in starts(dbias.len()) {
            store(load::<V>(dbias, i, 0.0) + load::<V>(dy, i, 0.0), dbias, i);
        }
    }
}
