//! Matrix products and what is made of them: one chain of fused multiply-adds per output element.

use crate::gemm::MatRef;

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

/// y = x Wᵀ + b of one row: each chain starts from its bias (from 0 without one).
///
/// `x`: (inputs,), `weight`: (outputs, inputs), `bias`: (outputs,). Returns (outputs,).
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let start = |o: usize| bias.map_or(0.0, |bias| bias[o]);
    let chain = |(o, w): (usize, &[f32])| w.iter().zip(x).fold(start(o), |sum, (w, x)| x.mul_add(*w, sum));
    weight.chunks_exact(x.len()).enumerate().map(chain).collect()
}

/// Gradients of [`linear`] for one row: returns dx = dy W, one chain over the outputs; `dweight` and `dbias` continue their
/// chains over the rows.
pub fn linear_backward(x: &[f32], weight: &[f32], dy: &[f32], dweight: &mut [f32], dbias: &mut [f32]) -> Vec<f32> {
    let inputs = x.len();
    for (o, dy) in dy.iter().enumerate() {
        for i in 0..inputs {
            dweight[o * inputs + i] = dy.mul_add(x[i], dweight[o * inputs + i]);
        }
        dbias[o] += dy;
    }
    (0..inputs).map(|i| (0..dy.len()).fold(0.0, |sum, o| dy[o].mul_add(weight[o * inputs + i], sum))).collect()
}

/// The row of `table`: (vocabulary, hidden) that `token` names.
pub fn embedding(table: &[f32], hidden: usize, token: u32) -> &[f32] {
    &table[token as usize * hidden..][..hidden]
}

/// The gradient of [`embedding`]: `dout` is added to the token's row. Tokens go in packed order.
pub fn embedding_backward(dout: &[f32], token: u32, dtable: &mut [f32]) {
    for (i, d) in dout.iter().enumerate() {
        dtable[token as usize * dout.len() + i] += d;
    }
}
