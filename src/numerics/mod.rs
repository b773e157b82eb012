//! The arithmetic contract: every sum has one order, every elementary function is ours, so the bits never depend on the
//! machine, the thread count or the batch.
//!
//! [`reference`] is the definition, in plain scalar loops. Every other module computes the same bits faster, with the
//! instructions that [`isa`] chooses, and is tested for bit equality with it.

pub(crate) mod attention;
pub mod elementary;
pub(crate) mod embedding;
pub mod gemm;
pub(crate) mod interim;
pub mod isa;
pub(crate) mod linear;
pub(crate) mod logprob;
pub(crate) mod mlp;
pub(crate) mod norm;
pub mod optim;
pub(crate) mod parallel;
pub mod reduce;
pub mod reference;
pub(crate) mod rope;
pub mod simd;
