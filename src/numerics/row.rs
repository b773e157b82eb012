//! A row's vectors of sixteen, the last one part-filled: what the row kernels share.

use super::simd::{F32x16, LANES};

/// The vector at `i`; lanes beyond the row's end are `fill`.
#[inline(always)]
pub fn load<V: F32x16>(row: &[f32], i: usize, fill: f32) -> V {
    if i + LANES <= row.len() { V::load(&row[i..]) } else { V::load_part(&row[i..], fill) }
}

/// Writes the vector at `i`, as far as the row goes.
#[inline(always)]
pub fn store<V: F32x16>(x: V, row: &mut [f32], i: usize) {
    if i + LANES <= row.len() { x.store(&mut row[i..]) } else { x.store_part(&mut row[i..]) }
}

/// Where the vectors of a row of `n` elements start.
#[inline(always)]
pub fn starts(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(LANES)
}

/// The vector at `i` of a row of `n` elements, with 0 in the lanes beyond the row's end.
#[inline(always)]
pub fn keep<V: F32x16>(x: V, n: usize, i: usize) -> V {
    if i + LANES <= n {
        return x;
    }
    let inside = V::load_part(&[1.0; LANES][..n - i], 0.0);
    V::select(inside.eq(V::splat(1.0)), x, V::splat(0.0))
}
