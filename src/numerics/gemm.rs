//! Matrix products with one fixed chain of fused multiply-adds per output element.
//!
//! The order of the chain over `p` is the definition (the arithmetic contract, point 1); everything here only chooses which
//! elements are computed together. Tiles of C stay in registers while a block of `p` runs, blocks of `p` carry C through memory,
//! and threads own disjoint rectangles of C, so no choice can change a bit.

use std::cell::Cell;

use rayon::prelude::*;

use super::device::{self, product};
use super::isa::{self, Isa};
use super::parallel;
use super::simd::{LANES, dispatch};

mod few;
pub(crate) mod panels;
mod prepared;
pub(crate) mod tile;

pub use prepared::{Prepared, gemm_prepared};

use panels::{Out, Panels, View};
use tile::Tiled;

/// A read-only matrix view over a slice: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct MatRef<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix of `columns` columns.
    pub fn rows(data: &'a [f32], columns: usize) -> Self {
        Self { data, row_stride: columns, col_stride: 1 }
    }
    pub fn transposed(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row_stride + (columns - 1) * self.col_stride < self.data.len()
    }
    fn view(&self) -> View {
        View { data: self.data.as_ptr(), row_stride: self.row_stride, col_stride: self.col_stride }
    }
}

/// `c[i, j] ← (accumulate ? c[i, j] : 0) then, for p in 0..k ascending, c ← fma(a[i, p], b[p, j], c)`.
///
/// `a`: (m, k), `b`: (k, n), `c`: (m, n), row-major with `c_stride >= n` elements from a row to the next. Uses the threads of
/// the current rayon pool where the product is large enough to share.
///
/// # Panics
/// When a matrix doesn't fit its slice.
#[allow(clippy::too_many_arguments, reason = "the three shapes and three matrices of a product, as in BLAS")]
pub fn gemm(m: usize, n: usize, k: usize, a: MatRef, b: MatRef, c: &mut [f32], c_stride: usize, accumulate: bool) {
    if let Some(device) = device::active() {
        if m > 0 && n > 0 {
            check(m, n, k, a, b, c, c_stride);
            product::gemm(device, m, n, k, a, b, c, c_stride, accumulate);
        }
        return;
    }
    gemm_with(isa::active(), parallel::threads(), m, n, k, a, b, c, c_stride, accumulate);
}

/// The three matrices fit their slices.
fn check(m: usize, n: usize, k: usize, a: MatRef, b: MatRef, c: &[f32], c_stride: usize) {
    assert!(a.holds(m, k), "a ({m}, {k}) does not fit its slice");
    assert!(b.holds(k, n), "b ({k}, {n}) does not fit its slice");
    assert!(c_stride >= n && (m - 1) * c_stride + n <= c.len(), "c ({m}, {n}) does not fit its slice");
}

/// [`gemm`] on the calling thread alone: for products inside work that is parallel already.
#[allow(clippy::too_many_arguments, reason = "as gemm")]
pub fn gemm_serial(m: usize, n: usize, k: usize, a: MatRef, b: MatRef, c: &mut [f32], c_stride: usize, accumulate: bool) {
    gemm_with(isa::active(), 1, m, n, k, a, b, c, c_stride, accumulate);
}

/// [`gemm`] under a given instruction set, cut into at most `threads` parts (the result's bits are the same under each).
#[allow(clippy::too_many_arguments, reason = "as gemm")]
pub fn gemm_with(
    isa: Isa,
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: MatRef,
    b: MatRef,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    check(m, n, k, a, b, c, c_stride);
    let out = Out { data: c.as_mut_ptr(), row_stride: c_stride, col_stride: 1 };
    let whole = Product { m, n, k, a: a.view(), b: b.view(), c: out, accumulate }.turned_where_narrow();
    let (down, across) = grid(&whole, threads);
    if down * across == 1 {
        product_with(isa, whole);
    } else {
        let part = |index: usize| product_with(isa, whole.part(index / across, down, index % across, across));
        (0..down * across).into_par_iter().with_max_len(1).for_each(part);
    }
}

/// One product, or a rectangle of it. Whoever makes one vouches that the three matrices fit their memory for as long as it
/// lives and that nothing else touches its elements of C.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: View,
    b: View,
    c: Out,
    accumulate: bool,
}

// SAFETY: parts that run on several threads read A and B, which are borrowed for the whole call, and write disjoint rectangles of C.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// `C' = B' A'` where C has few columns, so that it has few rows instead: fma(a, b, c) and fma(b, a, c) are the same number.
    fn turned_where_narrow(self) -> Self {
        if self.n >= self.m || self.n >= LANES || self.a.col_stride != 1 {
            return self;
        }
        let c = Out { row_stride: self.c.col_stride, col_stride: self.c.row_stride, ..self.c };
        Self { m: self.n, n: self.m, a: self.b.transposed(), b: self.a.transposed(), c, ..self }
    }

    /// The rectangle of C in row `i` and column `j` of a `down` × `across` grid.
    fn part(self, i: usize, down: usize, j: usize, across: usize) -> Self {
        let (top, bottom) = share(self.m, down, i, 4);
        let (left, right) = share(self.n, across, j, LANES);
        Self {
            m: bottom - top,
            n: right - left,
            a: self.a.from(top, 0),
            b: self.b.from(0, left),
            c: self.c.from(top, left),
            ..self
        }
    }
}

/// The `index`-th of `parts` nearly equal ranges of `0..length`, cut at multiples of `unit`.
fn share(length: usize, parts: usize, index: usize, unit: usize) -> (usize, usize) {
    let cut = |i: usize| (length.div_ceil(unit) * i / parts * unit).min(length);
    (cut(index), cut(index + 1))
}

/// Rows that a product of fewer costs as much as, for reading B.
const LEAST_ROWS: usize = 8;
/// Multiply-adds below which handing work to another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 21;

/// Into how many parts a product may be cut.
fn worth(threads: usize, m: usize, n: usize, k: usize) -> usize {
    threads.min(m.max(LEAST_ROWS) * n * k / WORTH_A_THREAD)
}

/// What copying an element into a panel costs, in multiply-adds of a tile.
const COPY: usize = 16;

/// How many parts down and across: as many as threads and size allow, whose largest is soonest done. Each part packs its columns of B,
/// and its rows of A unless tiles read these where they are.
fn grid(product: &Product, threads: usize) -> (usize, usize) {
    let parts = worth(threads, product.m, product.n, product.k);
    if parts < 2 {
        return (1, 1);
    }
    let (fours, lanes) = (product.m.div_ceil(4), product.n.div_ceil(LANES));
    let in_place = reads_well_in_place(product.a, product.n, 2 * LANES);
    let largest = |(down, across): (usize, usize)| {
        let (rows, columns) = (4 * fours.div_ceil(down), LANES * lanes.div_ceil(across));
        rows * columns + COPY * (columns + if in_place { 0 } else { rows })
    };
    (1..=parts)
        .map(|down| (down, parts / down))
        .filter(|&(down, across)| down <= fours && across <= lanes)
        .min_by_key(|&part| largest(part))
        .unwrap_or((1, 1))
}

/// Elements of `p` in one block: many, as C is read and written once a block. Panels of A and B come from the second-level cache.
const BLOCK_K: usize = 768;
/// Rows of A in one block: with `BLOCK_K`, 370 kB of the second-level cache.
const BLOCK_M: usize = 120;
/// Columns of B in one block: with `BLOCK_K`, 6 MB of the last-level cache.
const BLOCK_N: usize = 2048;

dispatch! {
    /// Computes one product on this thread.
    fn product_with(product: Product) = product_kernel;
}

thread_local! {
    /// Room for packed blocks of A and of B, kept from call to call.
    static PACKED: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

#[inline(always)]
fn product_kernel<V: Tiled>(product: Product) {
    let Product { m, n, k, .. } = product;
    if product.b.row_stride == 1 && product.b.col_stride != 1 && m <= V::FEW && n >= LANES {
        // SAFETY: whoever made the product vouches for its memory.
        return unsafe { few::any_few_rows::<V>(product) };
    }
    let (mut packed_a, mut packed_b) = PACKED.take();
    let panel = V::VECTORS * LANES;
    let depth = k.div_ceil(k.div_ceil(BLOCK_K).max(1)).max(1);
    // Where A is one block, a panel of B is used up while it is still in the first-level cache.
    let block_n = if m <= BLOCK_M { panel } else { BLOCK_N };
    for p in (0..k.max(1)).step_by(depth) {
        let carry = product.accumulate || p > 0;
        let kc = depth.min(k - p);
        let mut block_a = None;
        for j in (0..n).step_by(block_n) {
            let nc = block_n.min(n - j);
            let b = product.b.from(p, j).transposed();
            let in_place = if b.row_stride == 1 && m <= 2 * V::ROWS { nc - nc % panel } else { 0 };
            // SAFETY: B has nc columns of depth kc from (p, j).
            let b = unsafe { Panels::new::<V>(b, nc, kc, panel, LANES, in_place, &mut packed_b) };
            for i in (0..m).step_by(BLOCK_M) {
                let mc = BLOCK_M.min(m - i);
                if block_a.is_none() || m > BLOCK_M {
                    let a = product.a.from(i, p);
                    let in_place = if reads_well_in_place(a, n, panel) { mc } else { 0 };
                    // SAFETY: A has mc rows of depth kc from (i, p).
                    block_a = Some(unsafe { Panels::new::<V>(a, mc, kc, V::ROWS, 1, in_place, &mut packed_a) });
                }
                if let Some(a) = &block_a {
                    // SAFETY: the panels hold mc rows and nc columns of depth kc, and C has mc × nc elements from (i, j).
                    unsafe { tile::block::<V>(mc, nc, kc, a, &b, product.c.from(i, j), carry) };
                }
            }
        }
    }
    PACKED.set((packed_a, packed_b));
}

/// Whether a tile may read rows of A where they are: they run along memory and don't all fall into one cache set, or too few
/// columns of C use them to pay for a copy.
fn reads_well_in_place(a: View, columns: usize, tile_columns: usize) -> bool {
    (a.col_stride == 1 && !a.row_stride.is_multiple_of(256)) || columns <= tile_columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    /// A matrix laid out with or without transposition and with gaps between its rows; values of mixed sign and size.
    struct Laid {
        data: Vec<f32>,
        rows: usize,
        columns: usize,
        gap: usize,
        transposed: bool,
    }

    impl Laid {
        fn new(rows: usize, columns: usize, gap: usize, transposed: bool, seed: u32, special: bool) -> Self {
            let (r, c) = if transposed { (columns, rows) } else { (rows, columns) };
            let data = (0..r * (c + gap)).map(|i| value(seed.wrapping_add(i as u32), special)).collect();
            Self { data, rows, columns, gap, transposed }
        }
        fn view(&self) -> MatRef<'_> {
            if self.transposed {
                MatRef::rows(&self.data, self.rows + self.gap).transposed()
            } else {
                MatRef::rows(&self.data, self.columns + self.gap)
            }
        }
    }

    /// A value that depends on `seed` alone: mostly in ±2; where `special`, now and then a zero, subnormal, huge value, infinity or NaN.
    fn value(seed: u32, special: bool) -> f32 {
        let x = seed.wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
        let x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
        let x = x ^ (x >> 12);
        if special && x.is_multiple_of(7) {
            return [0.0, -0.0, 1e-42, -3e-45, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN][(x >> 8) as usize % 8];
        }
        (x as i32 as f32) / 2f32.powi(30)
    }

    /// Equal bits, or both NaN.
    fn same(x: f32, y: f32) -> bool {
        x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
    }

    #[allow(clippy::too_many_arguments, reason = "each is a dimension of the test")]
    fn check_shape(
        m: usize,
        n: usize,
        k: usize,
        gaps: [usize; 3],
        turned: [bool; 2],
        accumulate: bool,
        special: bool,
        threads: usize,
    ) {
        let a = Laid::new(m, k, gaps[0], turned[0], 1, special);
        let b = Laid::new(k, n, gaps[1], turned[1], 2, special);
        let c_stride = n + gaps[2];
        let start: Vec<f32> = (0..m * c_stride).map(|i| value(3 + i as u32, special)).collect();
        let mut expected = start.clone();
        reference::gemm(m, n, k, a.view(), b.view(), &mut expected, c_stride, accumulate);
        for isa in isa::available() {
            let mut c = start.clone();
            gemm_with(isa, threads, m, n, k, a.view(), b.view(), &mut c, c_stride, accumulate);
            let differs = (0..c.len()).find(|&i| !same(c[i], expected[i]));
            assert_eq!(differs, None, "{isa} {m}x{n}x{k} gaps {gaps:?} transposed {turned:?} threads {threads}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn every_path_gives_the_bits_of_the_definition(
            m in 1..40usize, n in 1..80usize, k in 0..40usize, gaps in [0..3usize, 0..3usize, 0..3usize],
            turned in any::<[bool; 2]>(), accumulate: bool, special: bool,
        ) {
            check_shape(m, n, k, gaps, turned, accumulate, special, 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn few_rows_and_weights_whose_rows_share_a_cache_set_give_the_bits_of_the_definition(
            m in 1..18usize, n in 1..70usize, gap in 0..20usize, accumulate: bool, special: bool, narrow: bool,
        ) {
            // Rows of B are 512 elements apart.
            let k = 512 - gap;
            if narrow {
                check_shape(n, m, k, [gap, 0, 1], [false, true], accumulate, special, 1);
            } else {
                check_shape(m, n, k, [1, gap, 0], [false, true], accumulate, special, 2);
            }
        }
    }

    #[test]
    fn blocks_and_threads_change_no_bit() {
        let blocks =
            [(261, 130, 300), (130, 70, 1600), (125, 2100, 270), (600, 34, 513), (3, 2200, 800), (1, 700, 300), (130, 1, 520)];
        for (m, n, k) in blocks {
            for turned in [[false, false], [false, true], [true, false], [true, true]] {
                check_shape(m, n, k, [0, 0, 0], turned, true, false, 1);
                check_shape(m, n, k, [0, 1, 0], turned, false, false, 3);
            }
        }
    }

    #[test]
    fn a_product_of_whole_numbers_is_exact() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
        let mut c = [100.0; 4];
        gemm(2, 2, 3, MatRef::rows(&a, 3), MatRef::rows(&b, 2), &mut c, 2, false);
        assert_eq!(c, [58.0, 64.0, 139.0, 154.0]);
        gemm(2, 2, 3, MatRef::rows(&b, 2).transposed(), MatRef::rows(&a, 3).transposed(), &mut c, 2, true);
        assert_eq!(c, [58.0 + 58.0, 64.0 + 139.0, 139.0 + 64.0, 154.0 + 154.0]);
    }

    #[test]
    #[should_panic(expected = "b (3, 2) does not fit")]
    fn a_matrix_that_does_not_fit_its_slice_is_refused() {
        gemm(2, 2, 3, MatRef::rows(&[0.0; 6], 3), MatRef::rows(&[0.0; 5], 2), &mut [0.0; 4], 2, false);
    }
}
