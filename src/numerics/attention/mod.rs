//! Causal attention over packed trees of segments (NUMERICS 5), forward and backward.
//!
//! A segment's rows attend to every row of its parent chain, then causally to their own. The keys of a row are therefore the
//! same list, in the same order, as those of the unshared sequence, and so are the row's bits.

mod kernels;

use std::ops::Range;

use super::parallel::make_and_consume;
use kernels::{add_mixed_columns, attend, dots, mix_rows, weights};

/// Consecutive packed rows, after the rows of an earlier segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub rows: Range<usize>,
    pub parent: Option<usize>,
}

/// `heads` query heads share `kv_heads` key and value heads in equal consecutive groups (Ainslie et al. 2023).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }
    pub(crate) fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
    /// Scores are multiplied by 1 / √head_dim.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// The queries (rows, heads · head_dim), keys and values (rows, kv_heads · head_dim) of a packed batch, after the rotary turn.
#[derive(Clone, Copy)]
pub(crate) struct Projections<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

/// The packed rows that a segment's last row attends to: its parent chain from the root, then its own.
fn key_rows(segments: &[Segment], segment: usize) -> Vec<usize> {
    let mut chain = vec![segment];
    while let Some(parent) = segments[chain[chain.len() - 1]].parent {
        chain.push(parent);
    }
    chain.into_iter().rev().flat_map(|s| segments[s].rows.clone()).collect()
}

/// (rows.len(), head_dim): the columns of one head from a matrix of `width` columns.
fn gather(x: &[f32], width: usize, rows: &[usize], head: usize, head_dim: usize) -> Vec<f32> {
    rows.iter().flat_map(|r| x[r * width + head * head_dim..][..head_dim].iter().copied()).collect()
}

/// Number of `f32` from one row to the next of a transposed matrix over `keys` keys: whole vectors of 16.
pub(crate) fn stride(keys: usize) -> usize {
    keys.next_multiple_of(16)
}

/// (head_dim, stride(rows)): the transpose of a (rows, head_dim) matrix, filled up with zeros.
fn transpose(x: &[f32], head_dim: usize) -> Vec<f32> {
    let stride = stride(x.len() / head_dim);
    let mut out = vec![0.0; head_dim * stride];
    for (j, row) in x.chunks_exact(head_dim).enumerate() {
        row.iter().enumerate().for_each(|(d, value)| out[d * stride + j] = *value);
    }
    out
}

/// `out`: (rows, heads · head_dim) ← softmax(q kᵀ / √head_dim) v over each row's keys.
pub(crate) fn forward(segments: &[Segment], heads: Heads, projections: Projections, out: &mut [f32]) {
    let (width, part) = (heads.query_width(), heads.group() * heads.head_dim);
    let units = segments.len() * heads.kv_heads;
    let make = |unit: usize| forward_unit(segments, unit / heads.kv_heads, unit % heads.kv_heads, heads, projections);
    make_and_consume(units, make, |unit, attended: Vec<f32>| {
        let start = (unit % heads.kv_heads) * part;
        for (row, values) in segments[unit / heads.kv_heads].rows.clone().zip(attended.chunks_exact(part)) {
            out[row * width + start..][..part].copy_from_slice(values);
        }
    });
}

/// The attended values of one segment for the query heads of one key head: (segment rows, group · head_dim).
fn forward_unit(segments: &[Segment], segment: usize, kv_head: usize, heads: Heads, from: Projections) -> Vec<f32> {
    let (dim, group) = (heads.head_dim, heads.group());
    let keys = key_rows(segments, segment);
    let kt = transpose(&gather(from.k, heads.key_width(), &keys, kv_head, dim), dim);
    let v = gather(from.v, heads.key_width(), &keys, kv_head, dim);
    let rows = segments[segment].rows.clone();
    let before = keys.len() - rows.len();
    let mut scores = vec![0.0; stride(keys.len())];
    let mut out = vec![0.0; rows.len() * group * dim];
    for (i, row) in rows.enumerate() {
        for h in 0..group {
            let q = &from.q[row * heads.query_width() + (kv_head * group + h) * dim..][..dim];
            let out = &mut out[(i * group + h) * dim..][..dim];
            attend(q, &kt, stride(keys.len()), &v, before + i + 1, heads.scale(), &mut scores, out);
        }
    }
    out
}

/// Gradients of the three projections, in their layouts.
pub(crate) struct ProjectionGradients {
    pub dq: Vec<f32>,
    pub dk: Vec<f32>,
    pub dv: Vec<f32>,
}

/// Gradients of [`forward`] for `dout`: (rows, heads · head_dim).
///
/// With P the softmax: dV = Pᵀ dO, dP = dO Vᵀ, dS = P · (dP − Σ P dP), dQ = dS K / √d, dK = dSᵀ Q / √d. A key's gradient
/// is one chain over the queries that see it: segments of its tree in packed order, query heads of its group ascending, rows
/// ascending.
pub(crate) fn backward(segments: &[Segment], heads: Heads, projections: Projections, dout: &[f32]) -> ProjectionGradients {
    let (q_width, k_width) = (heads.query_width(), heads.key_width());
    let (dim, part) = (heads.head_dim, heads.group() * heads.head_dim);
    let mut grads = ProjectionGradients {
        dq: vec![0.0; projections.q.len()],
        dk: vec![0.0; projections.k.len()],
        dv: vec![0.0; projections.v.len()],
    };
    let trees = trees(segments);
    let make = |unit: usize| {
        let mut unit =
            TreeBackward::new(segments, &trees[unit / heads.kv_heads], unit % heads.kv_heads, heads, projections, dout);
        unit.run();
        unit
    };
    make_and_consume(trees.len() * heads.kv_heads, make, |_, unit| {
        for (i, row) in unit.rows.iter().enumerate() {
            grads.dq[row * q_width + unit.kv_head * part..][..part].copy_from_slice(&unit.dq[i * part..][..part]);
            grads.dk[row * k_width + unit.kv_head * dim..][..dim].copy_from_slice(&unit.dk[i * dim..][..dim]);
            grads.dv[row * k_width + unit.kv_head * dim..][..dim].copy_from_slice(&unit.dv[i * dim..][..dim]);
        }
    });
    grads
}

/// Segments grouped by their root, each group in packed order.
fn trees(segments: &[Segment]) -> Vec<Vec<usize>> {
    let mut trees: Vec<Vec<usize>> = Vec::new();
    let mut tree_of = Vec::with_capacity(segments.len());
    for (s, segment) in segments.iter().enumerate() {
        let tree = match segment.parent {
            Some(parent) => tree_of[parent],
            None => {
                trees.push(Vec::new());
                trees.len() - 1
            }
        };
        tree_of.push(tree);
        trees[tree].push(s);
    }
    trees
}

/// The backward pass of one tree of segments and one key head.
struct TreeBackward<'a> {
    segments: &'a [Segment],
    tree: &'a [usize],
    kv_head: usize,
    heads: Heads,
    from: Projections<'a>,
    dout: &'a [f32],
    /// Packed rows of the tree, ascending; the gradients below are over these rows.
    rows: Vec<usize>,
    /// (rows, group · head_dim)
    dq: Vec<f32>,
    /// (rows, head_dim)
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl<'a> TreeBackward<'a> {
    fn new(
        segments: &'a [Segment],
        tree: &'a [usize],
        kv_head: usize,
        heads: Heads,
        from: Projections<'a>,
        dout: &'a [f32],
    ) -> Self {
        let rows: Vec<usize> = tree.iter().flat_map(|s| segments[*s].rows.clone()).collect();
        let (n, dim) = (rows.len(), heads.head_dim);
        let (dq, dk, dv) = (vec![0.0; n * heads.group() * dim], vec![0.0; n * dim], vec![0.0; n * dim]);
        Self { segments, tree, kv_head, heads, from, dout, rows, dq, dk, dv }
    }

    fn run(&mut self) {
        for &segment in self.tree {
            self.segment(segment);
        }
    }

    fn local(&self, row: usize) -> usize {
        self.rows.binary_search(&row).expect("a row of this tree")
    }

    fn segment(&mut self, segment: usize) {
        let (dim, width) = (self.heads.head_dim, self.heads.key_width());
        let keys = key_rows(self.segments, segment);
        let k = gather(self.from.k, width, &keys, self.kv_head, dim);
        let v = gather(self.from.v, width, &keys, self.kv_head, dim);
        let (kt, vt) = (transpose(&k, dim), transpose(&v, dim));
        let local: Vec<usize> = keys.iter().map(|r| self.local(*r)).collect();
        let mut dk = gather(&self.dk, dim, &local, 0, dim);
        let mut dv = gather(&self.dv, dim, &local, 0, dim);
        for h in 0..self.heads.group() {
            self.head(segment, h, &k, &kt, &vt, &mut dk, &mut dv);
        }
        for (i, at) in local.iter().enumerate() {
            self.dk[at * dim..][..dim].copy_from_slice(&dk[i * dim..][..dim]);
            self.dv[at * dim..][..dim].copy_from_slice(&dv[i * dim..][..dim]);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn head(&mut self, segment: usize, h: usize, k: &[f32], kt: &[f32], vt: &[f32], dk: &mut [f32], dv: &mut [f32]) {
        let (dim, group) = (self.heads.head_dim, self.heads.group());
        let rows: Vec<usize> = self.segments[segment].rows.clone().collect();
        let n = k.len() / dim;
        let (before, stride) = (n - rows.len(), stride(n));
        let q = gather(self.from.q, self.heads.query_width(), &rows, self.kv_head * group + h, dim);
        let dout = gather(self.dout, self.heads.query_width(), &rows, self.kv_head * group + h, dim);
        // p and ds: (rows, stride), row i meaningful up to its `before + i + 1` keys.
        let (mut p, mut ds) = (vec![0.0; rows.len() * stride], vec![0.0; rows.len() * stride]);
        let first = self.local(rows[0]);
        for i in 0..rows.len() {
            let seen = before + i + 1;
            let (p, ds) = (&mut p[i * stride..][..stride], &mut ds[i * stride..][..stride]);
            weights(&q[i * dim..][..dim], kt, stride, seen, self.heads.scale(), p);
            dots(&dout[i * dim..][..dim], vt, stride, seen, ds);
            kernels::softmax_backward(&p[..seen], &mut ds[..seen], self.heads.scale());
            mix_rows(&ds[..seen], k, &mut self.dq[((first + i) * group + h) * dim..][..dim]);
        }
        add_mixed_columns(&p, stride, before, &dout, dim, dv);
        add_mixed_columns(&ds, stride, before, &q, dim, dk);
    }
}

pub(crate) use kernels::attend as attend_row;
