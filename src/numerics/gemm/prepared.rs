//! Products with one matrix again and again: it is copied once into the order in which tiles read it.

use rayon::prelude::*;

use super::panels::{Out, Panels, View, aligned_start};
use super::tile::{self, Tiled};
use super::{BLOCK_M, MatRef, PACKED, reads_well_in_place, share, worth};
use crate::isa::{self, Isa};
use crate::parallel;
use crate::simd::{LANES, dispatch};

/// Columns that lie together: whole tiles of every instruction set.
const PANEL: usize = 2 * LANES;

/// The right-hand matrix of products, (k, n), laid out for few rows on the left: a model's weights while it decodes.
pub struct Prepared {
    n: usize,
    k: usize,
    room: Vec<f32>,
}

impl Prepared {
    /// # Panics
    /// When `b`, (k, n), doesn't fit its slice.
    pub fn new(b: MatRef, k: usize, n: usize) -> Self {
        assert!(b.holds(k, n), "b ({k}, {n}) does not fit its slice");
        let mut room = Vec::new();
        prepare(b.view().transposed(), n, k, &mut room);
        Self { n, k, room }
    }

    /// n
    pub fn columns(&self) -> usize {
        self.n
    }

    /// k
    pub fn depth(&self) -> usize {
        self.k
    }
}

dispatch! {
    /// Copies `n` lanes of depth `k` into panels at the aligned start of `room`.
    fn prepare, prepare_with(lanes: View, n: usize, k: usize, room: &mut Vec<f32>) = prepare_kernel;
}
dispatch! {
    fn product_with(product: Product) = product_kernel;
}

/// [`gemm`](super::gemm) by a prepared `b`, with the same bits.
///
/// # Panics
/// When a matrix doesn't fit its slice.
pub fn gemm_prepared(m: usize, a: MatRef, b: &Prepared, c: &mut [f32], c_stride: usize, accumulate: bool) {
    gemm_prepared_with(isa::active(), parallel::threads(), m, a, b, c, c_stride, accumulate);
}

/// [`gemm_prepared`] under a given instruction set, cut into at most `threads` parts.
#[allow(clippy::too_many_arguments, reason = "the shapes and matrices of a product, as in BLAS")]
fn gemm_prepared_with(
    isa: Isa,
    threads: usize,
    m: usize,
    a: MatRef,
    b: &Prepared,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    let Prepared { n, k, ref room } = *b;
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.holds(m, k), "a ({m}, {k}) does not fit its slice");
    assert!(c_stride >= n && (m - 1) * c_stride + n <= c.len(), "c ({m}, {n}) does not fit its slice");
    let c = Out { data: c.as_mut_ptr(), row_stride: c_stride, col_stride: 1 };
    let whole = Product { m, n, k, a: a.view(), b: room.as_ptr().wrapping_add(aligned_start(room)), c, accumulate };
    let parts = worth(threads, m, n, k);
    if parts < 2 {
        return product_with(isa, whole);
    }
    (0..parts).into_par_iter().with_max_len(1).for_each(|i| product_with(isa, whole.part(i, parts)));
}

/// As [`super::Product`], whose B is prepared.
#[derive(Clone, Copy)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: View,
    b: *const f32,
    c: Out,
    accumulate: bool,
}

// SAFETY: parts that run on several threads read A and B, which are borrowed for the whole call, and write disjoint columns of C.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// The `index`-th of `parts` nearly equal groups of columns.
    fn part(self, index: usize, parts: usize) -> Self {
        let (left, right) = share(self.n, parts, index, PANEL);
        Self { n: right - left, b: self.b.wrapping_add(left * self.k), c: self.c.from(0, left), ..self }
    }
}

#[inline(always)]
fn prepare_kernel<V: Tiled>(lanes: View, n: usize, k: usize, room: &mut Vec<f32>) {
    // SAFETY: `Prepared::new` asked whether there are n lanes of depth k.
    unsafe { Panels::new::<V>(lanes, n, k, PANEL, LANES, 0, room) };
}

#[inline(always)]
fn product_kernel<V: Tiled>(product: Product) {
    let Product { m, n, k, a, c, .. } = product;
    let b = Panels::of_copied(product.b, n, k, PANEL, LANES);
    let (mut packed_a, packed_b) = PACKED.take();
    for i in (0..m).step_by(BLOCK_M) {
        let (a, mc) = (a.from(i, 0), BLOCK_M.min(m - i));
        let in_place = if reads_well_in_place(a, n, PANEL) { mc } else { 0 };
        // SAFETY: whoever made the product vouches that A has mc rows of depth k from i on, that the panels hold n columns of depth
        // k, and that nothing else touches these elements of C.
        unsafe {
            let a = Panels::new::<V>(a, mc, k, V::ROWS, 1, in_place, &mut packed_a);
            tile::block::<V>(mc, n, k, &a, &b, c.from(i, 0), product.accumulate);
        }
    }
    PACKED.set((packed_a, packed_b));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) as u32).wrapping_mul(0x9e37_79b9) as i32 as f32 / 2f32.powi(30)).collect()
    }

    fn check(m: usize, n: usize, k: usize, turned: bool, accumulate: bool, threads: usize) {
        let (a, b, start) = (values(m * k, 1), values(k * n, 7), values(m * (n + 1), 5));
        let a = MatRef::rows(&a, k);
        let b = if turned { MatRef::rows(&b, k).transposed() } else { MatRef::rows(&b, n) };
        let mut expected = start.clone();
        reference::gemm(m, n, k, a, b, &mut expected, n + 1, accumulate);
        for made_by in isa::available() {
            let mut prepared = Prepared { n, k, room: Vec::new() };
            prepare_with(made_by, b.view().transposed(), n, k, &mut prepared.room);
            for isa in isa::available() {
                let mut c = start.clone();
                gemm_prepared_with(isa, threads, m, a, &prepared, &mut c, n + 1, accumulate);
                assert_eq!(c, expected, "{m}x{n}x{k} transposed {turned}, prepared by {made_by}, multiplied by {isa}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_prepared_matrix_gives_the_bits_of_the_definition(
            m in 1..40usize, n in 1..110usize, k in 0..40usize, turned: bool, accumulate: bool,
        ) {
            check(m, n, k, turned, accumulate, 1);
        }
    }

    #[test]
    fn blocks_and_threads_change_no_bit_of_a_prepared_product() {
        for (m, n, k) in [(1, 600, 800), (33, 330, 512), (130, 70, 300), (4, 2100, 513)] {
            check(m, n, k, true, true, 1);
            check(m, n, k, true, false, 3);
        }
    }

    #[test]
    #[should_panic(expected = "b (3, 2) does not fit")]
    fn a_matrix_that_does_not_fit_its_slice_is_not_prepared() {
        Prepared::new(MatRef::rows(&[0.0; 5], 2), 3, 2);
    }
}
