//! The executable definition of every operation: plain scalar loops, no vectors, no threads.
//!
//! Arithmetic is IEEE-754 binary32, round to nearest even, subnormals kept, fused only where `mul_add` is written. Which NaN comes
//! out where a NaN is due is left open, as IEEE leaves it; everything else is fixed to the bit.

use super::gemm::MatRef;

/// `c[i, j] ← (accumulate ? c[i, j] : 0) then, for p in 0..k ascending, c ← fma(a[i, p], b[p, j], c)`.
#[allow(clippy::too_many_arguments, reason = "the three shapes and three matrices of a product, as in BLAS")]
pub fn gemm(m: usize, n: usize, k: usize, a: MatRef, b: MatRef, c: &mut [f32], c_stride: usize, accumulate: bool) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = if accumulate { c[i * c_stride + j] } else { 0.0 };
            for p in 0..k {
                let (x, y) = (a.data[i * a.row_stride + p * a.col_stride], b.data[p * b.row_stride + j * b.col_stride]);
                sum = x.mul_add(y, sum);
            }
            c[i * c_stride + j] = sum;
        }
    }
}
