//! The arithmetic contract: every sum has one order, every elementary function is ours, so the bits never depend on the
//! machine, the thread count or the batch.

pub mod gemm;
