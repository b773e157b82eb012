//! The linear map y = x Wᵀ and its gradients, as matrix products (NUMERICS 1 and 2).
//!
//! Weights have Hugging Face's layout (outputs, inputs), or, as a [`Weight`], GPT-2's (inputs, outputs). Rows are the tokens of a packed
//! batch.

use super::device::{self, rows};
use super::gemm::{MatRef, Prepared, gemm, gemm_prepared};
use super::matrix;
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

dispatch! {
    pub(super) fn add_rows, backward_bias_with(dy: &[f32], dbias: &mut [f32]) = bias_kernel;
}

/// `dbias`: (outputs,) += the rows of `dy`: (rows, outputs), one after the other.
pub fn backward_bias(dy: &[f32], dbias: &mut [f32]) {
    match device::active() {
        Some(device) => rows::add_columns(device, dy, dbias),
        None => add_rows(dy, dbias),
    }
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
    matrix::fill_rows(bias, y);
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

/// A weight matrix as its file has it: (outputs, inputs), or (inputs, outputs). Chains, and so bits, are the same for both.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    values: &'a [f32],
    inputs: usize,
    inputs_first: bool,
}

impl<'a> Weight<'a> {
    /// Of the shape (rows, columns).
    pub fn new(values: &'a [f32], [rows, columns]: [usize; 2], inputs_first: bool) -> Self {
        Self { values, inputs: if inputs_first { rows } else { columns }, inputs_first }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.values.len() / self.inputs
    }

    /// (inputs, outputs)
    fn matrix(&self) -> MatRef<'a> {
        match self.inputs_first {
            true => MatRef::rows(self.values, self.outputs()),
            false => MatRef::rows(self.values, self.inputs).transposed(),
        }
    }

    /// [`forward`].
    pub fn forward(&self, x: &[f32], y: &mut [f32], accumulate: bool) {
        let (rows, outputs) = (x.len() / self.inputs, self.outputs());
        gemm(rows, outputs, self.inputs, MatRef::rows(x, self.inputs), self.matrix(), y, outputs, accumulate);
    }

    /// For [`forward_prepared`].
    pub fn prepare(&self) -> Prepared {
        Prepared::new(self.matrix(), self.inputs, self.outputs())
    }

    /// [`backward_input`].
    pub fn backward_input(&self, dy: &[f32], dx: &mut [f32], accumulate: bool) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let rows = dy.len() / outputs;
        gemm(rows, inputs, outputs, MatRef::rows(dy, outputs), self.matrix().transposed(), dx, inputs, accumulate);
    }

    /// [`backward_weight`], into a `dweight` of the weight's shape.
    pub fn backward_weight(&self, dy: &[f32], x: &[f32], dweight: &mut [f32]) {
        let (rows, outputs) = (x.len() / self.inputs, self.outputs());
        let (x, dy) = (MatRef::rows(x, self.inputs), MatRef::rows(dy, outputs));
        match self.inputs_first {
            true => gemm(self.inputs, outputs, rows, x.transposed(), dy, dweight, outputs, true),
            false => gemm(outputs, self.inputs, rows, dy.transposed(), x, dweight, self.inputs, true),
        }
    }
}

#[inline(always)]
fn bias_kernel<V: F32x16>(dy: &[f32], dbias: &mut [f32]) {
    for dy in dy.chunks_exact(dbias.len()) {
        for i in starts(dbias.len()) {
            store(load::<V>(dbias, i, 0.0) + load::<V>(dy, i, 0.0), dbias, i);
        }
    }
}
