//! The linear map y = x Wᵀ and its gradients, as matrix products (NUMERICS 1 and 2).
//!
//! Weights have Hugging Face's layout (outputs, inputs). Rows are the tokens of a packed batch.

use super::gemm::{MatRef, gemm};

/// `y`: (rows, outputs) ← `x`: (rows, inputs) times `weight`ᵀ, added to what `y` holds when `accumulate`.
pub fn forward(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32], accumulate: bool) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let b = MatRef::rows(weight, inputs).transposed();
    gemm(rows, outputs, inputs, MatRef::rows(x, inputs), b, y, outputs, accumulate);
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
