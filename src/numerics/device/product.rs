//! Matrix products on a device.

use super::kernels::{GEMM_FEW, GEMM_LARGE, GEMM_MEDIUM, Kernel, Product, int};
use super::{Device, Launch};
use crate::gemm::MatRef;

/// A kernel with the rows and columns of its tiles.
#[derive(Clone, Copy)]
pub struct Tiling {
    kernel: &'static Kernel<Product>,
    rows: usize,
    columns: usize,
}

pub static TILINGS: [Tiling; 3] = [
    Tiling { kernel: &GEMM_LARGE, rows: 128, columns: 128 },
    Tiling { kernel: &GEMM_MEDIUM, rows: 64, columns: 64 },
    Tiling { kernel: &GEMM_FEW, rows: 16, columns: 64 },
];

impl Tiling {
    fn tiles(&self, m: usize, n: usize) -> usize {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }

    /// The largest tiles that leave no processor without work; the smallest where none do.
    fn for_shape(m: usize, n: usize, processors: usize) -> Self {
        let fits = |tiling: &&Self| m > tiling.rows / 4 && tiling.tiles(m, n) >= processors;
        *TILINGS.iter().find(fits).unwrap_or(&TILINGS[2])
    }
}

/// [`gemm`](crate::gemm::gemm), whose operands were checked.
#[allow(clippy::too_many_arguments, reason = "as gemm")]
pub fn gemm(
    device: &'static Device,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef,
    b: MatRef,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    let c_strides = [c_stride, 1];
    // C' = B' A' where C has few columns: fma(a, b, c) and fma(b, a, c) are the same number.
    if n < m && n <= 16 {
        let tiling = Tiling::for_shape(n, m, device.processors);
        return gemm_by(tiling, device, [n, m, k], b.transposed(), a.transposed(), c, [1, c_stride], accumulate);
    }
    gemm_by(Tiling::for_shape(m, n, device.processors), device, [m, n, k], a, b, c, c_strides, accumulate);
}

#[allow(clippy::too_many_arguments, reason = "as gemm")]
pub fn gemm_by(
    tiling: Tiling,
    device: &'static Device,
    [m, n, k]: [usize; 3],
    a: MatRef,
    b: MatRef,
    c: &mut [f32],
    c_strides: [usize; 2],
    accumulate: bool,
) {
    let mut launch = Launch::on(device);
    let strides = |strides: [usize; 2]| strides.map(|stride| stride as i64);
    let product = Product {
        a: launch.input(a.data),
        b: launch.input(b.data),
        c: launch.output(c),
        a_strides: strides([a.row_stride, a.col_stride]),
        b_strides: strides([b.row_stride, b.col_stride]),
        c_strides: strides(c_strides),
        m: int(m),
        n: int(n),
        k: int(k),
        accumulate: accumulate.into(),
    };
    launch.start(tiling.kernel, tiling.tiles(m, n), &product);
    launch.finish();
}
