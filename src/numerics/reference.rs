//! The executable definition of every operation: plain scalar loops, no vectors, no threads.
//!
//! Arithmetic is IEEE-754 binary32, round to nearest even, subnormals kept, fused only where `mul_add` is written. Which NaN comes
//! out where a NaN is due is left open, as IEEE leaves it; everything else is fixed to the bit. `a + b + c` is `(a + b) + c`.
//!
//! Row by row: what a function takes and returns is one row (a token, a query, a vocabulary) unless it says otherwise, and the
//! gradient of a parameter is a chain that the rows continue one after the other. Each file reads by itself; only
//! [`reduce`] and [`elementary`] stand below the others.

mod attention;
mod elementary;
mod matrix;
mod mlp;
mod norm;
mod optim;
mod reduce;
mod rope;
mod softcap;
mod softmax;

pub use attention::*;
pub use elementary::*;
pub use matrix::*;
pub use mlp::*;
pub use norm::*;
pub use optim::*;
pub use reduce::*;
pub use rope::*;
pub use softcap::*;
pub use softmax::*;

#[cfg(test)]
mod gradient_tests;
