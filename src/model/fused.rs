//! Queries, keys and values out of one projection, and their gradients back into one.

use super::names::Qkv;
use crate::numerics::attention::Heads;
use crate::numerics::buffer::Buffer;

/// Where queries, keys and values stand in a row of the projection's output: pieces of equal width each.
struct Places {
    starts: [Vec<usize>; 3],
    widths: [usize; 3],
}

impl Places {
    fn of(qkv: Qkv, heads: Heads) -> Self {
        let (q, kv, dim) = (heads.query_width(), heads.key_width(), heads.head_dim);
        match qkv {
            Qkv::ByHead(_) => {
                let starts = [0, 1, 2].map(|part| (0..heads.heads).map(|head| (3 * head + part) * dim).collect());
                Self { starts, widths: [dim; 3] }
            }
            Qkv::Thirds(_) | Qkv::Apart(_) => Self { starts: [vec![0], vec![q], vec![q + kv]], widths: [q, kv, kv] },
        }
    }
}

/// The queries of the rows `asked`, the keys and values of all, of `fused`: (rows, query width + twice key width).
pub(super) fn split(fused: &[f32], qkv: Qkv, heads: Heads, asked: &[usize]) -> [Buffer; 3] {
    let (width, places) = (heads.query_width() + 2 * heads.key_width(), Places::of(qkv, heads));
    let all: Vec<usize> = (0..fused.len() / width).collect();
    let part = |part: usize| {
        let (rows, piece, starts) = (if part == 0 { asked } else { &all }, places.widths[part], &places.starts[part]);
        let mut out = Buffer::unspecified(rows.len() * piece * starts.len());
        let pieces = rows.iter().flat_map(|row| starts.iter().map(move |start| row * width + start));
        out.chunks_exact_mut(piece).zip(pieces).for_each(|(out, at)| out.copy_from_slice(&fused[at..][..piece]));
        out
    };
    [0, 1, 2].map(part)
}

/// The gradient of [`split`]: (`rows`, query width + twice key width); queries of rows that don't ask have none.
pub(super) fn join(gradients: [&[f32]; 3], qkv: Qkv, heads: Heads, asked: &[usize], rows: usize) -> Buffer {
    let (width, places) = (heads.query_width() + 2 * heads.key_width(), Places::of(qkv, heads));
    let all: Vec<usize> = (0..rows).collect();
    let mut fused = Buffer::zeros(rows * width);
    for (part, gradient) in gradients.into_iter().enumerate() {
        let (rows, piece, starts) = (if part == 0 { asked } else { &all }, places.widths[part], &places.starts[part]);
        let pieces = rows.iter().flat_map(|row| starts.iter().map(move |start| row * width + start));
        gradient.chunks_exact(piece).zip(pieces).for_each(|(d, at)| fused[at..][..piece].copy_from_slice(d));
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
