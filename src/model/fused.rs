//! Queries, keys and values out of one projection, and their gradients back into one.

use super::names::Qkv;
use crate::numerics::attention::Heads;
use crate::numerics::buffer::Buffer;
use crate::numerics::matrix;

/// Where the heads of queries, keys and values stand in a row of the projection's output, which is so many heads wide.
struct Places {
    of: [Vec<usize>; 3],
    heads: usize,
}

impl Places {
    fn of(qkv: Qkv, heads: Heads) -> Self {
        let (q, kv) = (heads.heads, heads.kv_heads);
        let of = match qkv {
            Qkv::ByHead(_) => [0, 1, 2].map(|part| (0..q).map(|head| 3 * head + part).collect()),
            Qkv::Thirds(_) | Qkv::Apart(_) => [0..q, q..q + kv, q + kv..q + 2 * kv].map(Iterator::collect),
        };
        Self { of, heads: q + 2 * kv }
    }

    /// The heads of one part in `rows`, counted over all rows.
    fn in_rows(&self, part: usize, rows: impl Iterator<Item = usize>) -> Vec<usize> {
        rows.flat_map(|row| self.of[part].iter().map(move |place| row * self.heads + place)).collect()
    }
}

/// The queries of the rows `asked`, the keys and values of all, of `fused`: (rows, query width + twice key width).
pub(super) fn split(fused: &[f32], qkv: Qkv, heads: Heads, asked: &[usize]) -> [Buffer; 3] {
    let places = Places::of(qkv, heads);
    let rows = fused.len() / (places.heads * heads.head_dim);
    let queries = places.in_rows(0, asked.iter().copied());
    [queries, places.in_rows(1, 0..rows), places.in_rows(2, 0..rows)].map(|at| matrix::gather_rows(fused, &at, heads.head_dim))
}

/// The gradient of [`split`]: (`rows`, query width + twice key width); queries of rows that don't ask have none.
pub(super) fn join(gradients: [&[f32]; 3], qkv: Qkv, heads: Heads, asked: &[usize], rows: usize) -> Buffer {
    let places = Places::of(qkv, heads);
    let mut fused = Buffer::zeros(rows * places.heads * heads.head_dim);
    let queries = places.in_rows(0, asked.iter().copied());
    for (at, gradient) in [queries, places.in_rows(1, 0..rows), places.in_rows(2, 0..rows)].iter().zip(gradients) {
        matrix::spread_rows_over(gradient, at, heads.head_dim, &mut fused);
    }
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_are_taken_apart_and_joined_again() {
        let heads = Heads { heads: 2, kv_heads: 2, head_dim: 2, ..Heads::default() };
        let row: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let two: Vec<f32> = row.iter().chain(&row).copied().collect();
        for (qkv, expected) in [
            (Qkv::Thirds(""), [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]),
            (Qkv::ByHead(""), [[0.0, 1.0, 6.0, 7.0], [2.0, 3.0, 8.0, 9.0], [4.0, 5.0, 10.0, 11.0]]),
        ] {
            let [q, k, v] = split(&two, qkv, heads, &[1]);
            assert_eq!((&*q, &k[4..], &v[..4]), (&expected[0][..], &expected[1][..], &expected[2][..]));
            let joined = join([&q, &k, &v], qkv, heads, &[1], 2);
            assert_eq!(joined[12..], row);
            assert_eq!(joined.iter().take(12).sum::<f32>(), expected[1].iter().chain(&expected[2]).sum::<f32>());
        }
    }
}
