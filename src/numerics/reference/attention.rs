//! Attention: one query over its keys, and a packed batch of such queries.

use super::{dot, exp, max, softcap, softcap_slope, sum};
use crate::attention::{Heads, Projections, Segment};

/// `start`, then fma(a, b, ·) for each pair in order.
fn chain(start: f32, pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    pairs.fold(start, |sum, (a, b)| a.mul_add(b, sum))
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    chain(0.0, a.iter().copied().zip(b.iter().copied()))
}

/// How scores follow from products of queries and keys.
#[derive(Debug, Clone, Copy)]
pub struct Scoring {
    pub scale: f32,
    /// How many keys up to the query's own count, the last ones; none: all.
    pub window: Option<usize>,
    /// What scores are soft-capped at; none: they aren't.
    pub cap: Option<f32>,
}

impl Scoring {
    /// That of `heads`: 1 / √head_dim unless they have a scale of their own.
    pub fn of(heads: Heads) -> Self {
        let scale = heads.scale.unwrap_or(1.0 / (heads.head_dim as f32).sqrt());
        Self { scale, window: heads.window, cap: heads.cap }
    }

    /// q k · scale, capped.
    fn score(&self, q: &[f32], k: &[f32]) -> f32 {
        let score = product(q, k) * self.scale;
        self.cap.map_or(score, |cap| softcap(score, cap))
    }

    /// The scores of all keys: −∞ before the last `window` ones.
    fn scores(&self, q: &[f32], keys: &[&[f32]]) -> Vec<f32> {
        let start = self.window.map_or(0, |window| keys.len().saturating_sub(window));
        let score = |(j, k): (usize, &&[f32])| if j < start { f32::NEG_INFINITY } else { self.score(q, k) };
        keys.iter().enumerate().map(score).collect()
    }

    /// The gradient of a product of query and key, from that of its score.
    fn product_gradient(&self, q: &[f32], k: &[f32], dscore: f32) -> f32 {
        match self.cap {
            None => dscore * self.scale,
            Some(cap) => (dscore * softcap_slope(self.score(q, k), cap)) * self.scale,
        }
    }
}

/// exp(score − maximum) for each key, 0 before the last `window` ones, and their sum.
fn exponentials(q: &[f32], keys: &[&[f32]], scoring: Scoring) -> (Vec<f32>, f32) {
    let scores = scoring.scores(q, keys);
    let m = max(&scores);
    let e: Vec<f32> = scores.iter().map(|s| exp(s - m)).collect();
    let total = sum(&e);
    (e, total)
}

/// softmax(scores) v of one query over the keys and values up to its own, in the order of their positions. The division
/// comes last. With a window only the last keys count: the weights of those before are 0, and stay terms of every chain.
///
/// `q` and each key and value: (head_dim,). Returns (head_dim,).
pub fn attend(q: &[f32], keys: &[&[f32]], values: &[&[f32]], scoring: Scoring) -> Vec<f32> {
    let (e, total) = exponentials(q, keys, scoring);
    (0..q.len()).map(|d| chain(0.0, e.iter().zip(values).map(|(e, v)| (*e, v[d]))) / total).collect()
}

/// What [`attend`]'s gradients are made of: `p`, the softmax, and `ds`, the gradients of the products q k, one a key.
///
/// dP = dO Vᵀ, dS = P · (dP − Σ P dP) · (slope of the cap) · scale.
pub fn attend_backward(q: &[f32], keys: &[&[f32]], values: &[&[f32]], scoring: Scoring, dout: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (e, total) = exponentials(q, keys, scoring);
    let p: Vec<f32> = e.iter().map(|e| e / total).collect();
    let dp: Vec<f32> = values.iter().map(|v| product(dout, v)).collect();
    let mean = dot(&p, &dp);
    let ds = |((p, dp), k): ((&f32, &f32), &&[f32])| scoring.product_gradient(q, k, p * (dp - mean));
    let ds = p.iter().zip(&dp).zip(keys).map(ds).collect();
    (p, ds)
}

/// The rows that the last row of a segment sees: those of its ancestors from the root, then its own.
fn visible(segments: &[Segment], segment: usize) -> Vec<usize> {
    let before = segments[segment].parent.map_or(Vec::new(), |parent| visible(segments, parent));
    before.into_iter().chain(segments[segment].rows.clone()).collect()
}

/// One query head of one packed row, and the rows whose keys it sees.
struct Query {
    row: usize,
    /// Where the head starts in the row.
    at: usize,
    key_at: usize,
    keys: Vec<usize>,
}

/// Every query of a packed batch in the order of the gradients' chains: segments in packed order, heads ascending, rows ascending. In both
/// directions its keys are those of its whole segment.
fn queries(segments: &[Segment], heads: Heads) -> impl Iterator<Item = Query> {
    let group = heads.heads / heads.kv_heads;
    (0..segments.len()).flat_map(move |s| (0..heads.heads).map(move |head| (s, head))).flat_map(move |(s, head)| {
        let (seen, own) = (visible(segments, s), segments[s].rows.clone());
        let before = seen.len() - own.len();
        own.enumerate().map(move |(i, row)| Query {
            row,
            at: head * heads.head_dim,
            key_at: head / group * heads.head_dim,
            keys: if heads.bidirectional { seen.clone() } else { seen[..=before + i].to_vec() },
        })
    })
}

/// One head's part of each of the rows of `x`: (_, width).
fn head_rows<'a>(x: &'a [f32], width: usize, rows: &[usize], at: usize, heads: Heads) -> Vec<&'a [f32]> {
    rows.iter().map(|row| &x[row * width + at..][..heads.head_dim]).collect()
}

/// [`attend`] for every row and head of a packed batch: each row sees its segment's ancestors and its own segment up to itself,
/// or all of it in both directions, within the window of `heads`, with its scale and cap. `heads` consecutive query heads share a key head in equal groups.
///
/// Returns (rows, heads · head_dim).
pub fn attention(segments: &[Segment], heads: Heads, from: Projections) -> Vec<f32> {
    let (width, key_width, scoring) = (heads.query_width(), heads.key_width(), Scoring::of(heads));
    let mut out = vec![0.0; from.q.len()];
    for query in queries(segments, heads) {
        let at = query.row * width + query.at;
        let keys = head_rows(from.k, key_width, &query.keys, query.key_at, heads);
        let values = head_rows(from.v, key_width, &query.keys, query.key_at, heads);
        let attended = attend(&from.q[at..][..heads.head_dim], &keys, &values, scoring);
        out[at..][..heads.head_dim].copy_from_slice(&attended);
    }
    out
}

/// Gradients of [`attention`] for `dout`: (rows, heads · head_dim): [dq, dk, dv] in the layouts of q, k and v.
///
/// dQ = dS K, one chain over the keys; dK = dSᵀ Q and dV = Pᵀ dO, one chain over the queries that see the key, from 0.
pub fn attention_backward(segments: &[Segment], heads: Heads, from: Projections, dout: &[f32]) -> [Vec<f32>; 3] {
    let (width, key_width, scoring) = (heads.query_width(), heads.key_width(), Scoring::of(heads));
    let [mut dq, mut dk, mut dv] = [from.q, from.k, from.v].map(|x| vec![0.0f32; x.len()]);
    for query in queries(segments, heads) {
        let at = query.row * width + query.at;
        let (q, dout) = (&from.q[at..][..heads.head_dim], &dout[at..][..heads.head_dim]);
        let keys = head_rows(from.k, key_width, &query.keys, query.key_at, heads);
        let values = head_rows(from.v, key_width, &query.keys, query.key_at, heads);
        let (p, ds) = attend_backward(q, &keys, &values, scoring, dout);
        for d in 0..heads.head_dim {
            dq[at + d] = chain(0.0, ds.iter().zip(&keys).map(|(ds, k)| (*ds, k[d])));
            for (j, row) in query.keys.iter().enumerate() {
                let key = row * key_width + query.key_at + d;
                dk[key] = ds[j].mul_add(q[d], dk[key]);
                dv[key] = p[j].mul_add(dout[d], dv[key]);
            }
        }
    }
    [dq, dk, dv]
}
