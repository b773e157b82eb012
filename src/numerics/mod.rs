//! The arithmetic contract: every sum has one order, every elementary function is ours, so the bits never depend on the
//! machine, the thread count or the batch.

pub mod gemm;

pub(crate) mod interim;
pub(crate) mod parallel;

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod logprob;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod rope;
