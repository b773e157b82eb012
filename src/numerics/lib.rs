//! The arithmetic contract: every sum has one order, every elementary function is ours, so the bits never depend on the
//! machine, the thread count or the batch.
//!
//! [`reference`] is the definition, in plain scalar loops. Every other module computes the same bits faster, with the
//! instructions that [`isa`] chooses or on the [`device`] that is active, and is tested for bit equality with it.

pub mod attention;
pub mod buffer;
pub mod device;
pub mod dropout;
pub mod elementary;
pub mod embedding;
pub mod gelu;
pub mod gemm;
pub mod isa;
pub mod layer_norm;
pub mod linear;
pub mod logprob;
pub mod matrix;
pub mod mlp;
pub mod norm;
pub mod optim;
pub mod parallel;
pub mod reduce;
pub mod reference;
pub mod rope;
pub mod simd;
pub mod softcap;

mod row;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod locked_tests;
#[cfg(test)]
mod row_tests;
#[cfg(test)]
mod testing;
