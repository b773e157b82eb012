//! Attention over a packed batch: segments of like length side by side, filled up and masked.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Result, Tensor};

use super::weights::{Weights, soft_capped};
use crate::numerics::attention::{Heads, Segment};

/// `softmax(q kᵀ · scale + mask) v`, with scores capped where the heads' are.
///
/// `q`: (batch, heads, queries, head_dim), `k` and `v`: (batch, kv_heads, keys, head_dim), `mask`: (batch, 1, queries or 1,
/// keys) of 0 and −∞. Returns (batch, heads, queries, head_dim).
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor, of: Heads) -> Result<Tensor> {
    let (batch, heads, queries, dim) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    // The query heads that share keys stand under one another, so that keys are not repeated.
    let grouped = (batch, kv_heads, heads / kv_heads * queries);
    let scale = of.scale.map_or(1.0 / (dim as f64).sqrt(), f64::from);
    let scaled = (q * scale)?.reshape((grouped.0, grouped.1, grouped.2, dim))?;
    let mut scores = scaled.matmul(&k.transpose(2, 3)?)?;
    if let Some(cap) = of.cap {
        scores = soft_capped(&scores, f64::from(cap))?;
    }
    let scores = scores.reshape((batch, heads, queries, keys))?.broadcast_add(mask)?;
    // Subtracting the largest changes nothing but the range, so no gradient passes through it.
    let exp = scores.broadcast_sub(&scores.detach().max_keepdim(3)?)?.exp()?;
    let sums = exp.sum_keepdim(3)?;
    let values = exp.reshape((grouped.0, grouped.1, grouped.2, keys))?.matmul(v)?;
    values.reshape((batch, heads, queries, dim))?.broadcast_div(&sums)
}

/// Where the rows of a packed batch stand among padded ones.
pub(super) struct Layout {
    batches: Vec<Batch>,
    /// (rows,): where each packed row stands among the query rows of all batches.
    places: Tensor,
}

/// A segment's rows, and all that its last row has seen, in position order.
struct Member {
    own: Range<usize>,
    seen: Vec<usize>,
}

/// Segments of like length, each with the rows that it attends to.
struct Batch {
    segments: usize,
    queries: usize,
    keys: usize,
    /// (segments · queries,) and (segments · keys,): packed rows.
    query_rows: Tensor,
    key_rows: Tensor,
    /// (segments, 1, queries, keys) for each window that a layer has.
    masks: BTreeMap<Option<usize>, Tensor>,
}

impl Layout {
    /// Segments share a batch when their numbers of queries and of keys have the same next powers of two: so padding at most
    /// doubles either.
    pub fn new(weights: &Weights, segments: &[Segment], rows: usize) -> Result<Self> {
        let mut alike: BTreeMap<[usize; 2], Vec<Member>> = BTreeMap::new();
        for (index, segment) in segments.iter().enumerate() {
            let member = Member { own: segment.rows.clone(), seen: seen_by(segments, index) };
            let lengths = [member.own.len(), member.seen.len()].map(usize::next_power_of_two);
            alike.entry(lengths).or_default().push(member);
        }
        let (mut batches, mut places, mut first) = (Vec::new(), vec![0; rows], 0);
        for members in alike.values() {
            let batch = Batch::new(weights, members)?;
            for (i, member) in members.iter().enumerate() {
                member.own.clone().enumerate().for_each(|(at, row)| places[row] = first + i * batch.queries + at);
            }
            first += batch.segments * batch.queries;
            batches.push(batch);
        }
        Ok(Self { batches, places: weights.indices(places)? })
    }

    /// `q`, `k`, `v`: (rows, its heads, head_dim) → (rows, heads · head_dim), as the heads of a layer have it.
    pub fn attend(&self, [q, k, v]: [&Tensor; 3], of: Heads) -> Result<Tensor> {
        let (_, heads, dim) = q.dims3()?;
        let part = |b: &Batch| {
            let take = |x: &Tensor, rows: &Tensor, length: usize| {
                x.index_select(rows, 0)?.reshape((b.segments, length, x.dim(1)?, dim))?.transpose(1, 2)?.contiguous()
            };
            let [k, v] = [take(k, &b.key_rows, b.keys)?, take(v, &b.key_rows, b.keys)?];
            let out = attend(&take(q, &b.query_rows, b.queries)?, &k, &v, &b.masks[&of.window], of)?;
            out.transpose(1, 2)?.reshape((b.segments * b.queries, heads * dim))
        };
        let parts = self.batches.iter().map(part).collect::<Result<Vec<Tensor>>>()?;
        Tensor::cat(&parts, 0)?.index_select(&self.places, 0)
    }
}

impl Batch {
    /// Padding repeats the first row of either kind: as a query its result is left out, as a key it is masked.
    fn new(weights: &Weights, members: &[Member]) -> Result<Self> {
        let queries = members.iter().map(|m| m.own.len()).max().unwrap_or(0);
        let keys = members.iter().map(|m| m.seen.len()).max().unwrap_or(0);
        let (mut query_rows, mut key_rows) = (Vec::new(), Vec::new());
        for Member { own, seen } in members {
            query_rows.extend((0..queries).map(|i| if i < own.len() { own.start + i } else { own.start }));
            key_rows.extend((0..keys).map(|i| seen[if i < seen.len() { i } else { 0 }]));
        }
        let mask = |window: Option<usize>| {
            let last = |m: &Member, query: usize| match weights.config.block.bidirectional {
                true => m.seen.len() - 1,
                false => m.seen.len() - m.own.len() + if query < m.own.len() { query } else { 0 },
            };
            let rows = members.iter().flat_map(|m| (0..queries).map(move |query| last(m, query)));
            let values =
                rows.flat_map(|last| (0..keys).map(move |key| if sees(last, key, window) { 0.0 } else { f32::NEG_INFINITY }));
            weights.constant(values.collect(), (members.len(), 1, queries, keys))
        };
        let masks = weights.config.windows().into_iter().map(|window| Ok((window, mask(window)?)));
        Ok(Self {
            segments: members.len(),
            queries,
            keys,
            query_rows: weights.indices(query_rows)?,
            key_rows: weights.indices(key_rows)?,
            masks: masks.collect::<Result<_>>()?,
        })
    }
}

/// Whether the query at the position `last` sees the key at another.
pub(super) fn sees(last: usize, key: usize, window: Option<usize>) -> bool {
    key <= last && window.is_none_or(|window| key + window > last)
}

/// The rows that the last row of a segment has seen, in position order.
fn seen_by(segments: &[Segment], index: usize) -> Vec<usize> {
    let mut chain = vec![index];
    while let Some(parent) = segments[chain[chain.len() - 1]].parent {
        chain.push(parent);
    }
    chain.iter().rev().flat_map(|i| segments[*i].rows.clone()).collect()
}
