//! The arithmetic contract: every sum has one order, every elementary function is ours, so the bits never depend on the
//! machine, the thread count or the batch.
//!
//! [`reference`] is the definition, in plain scalar loops. Every other module computes the same bits faster, with the
//! instructions that [`isa`] chooses, and is tested for bit equality with it.

pub mod elementary;
pub mod gemm;
pub mod isa;
pub mod optim;
pub mod reduce;
pub mod reference;
pub mod simd;

pub(crate) mod attention;
pub(crate) mod buffer;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod logprob;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod parallel;
pub(crate) mod rope;
pub(crate) mod row;
