//! Causal attention over packed trees of segments (NUMERICS 5), forward and backward.
//!
//! A segment's rows attend to every row of its parent chain, then causally to their own. The keys of a row are therefore the
//! same list, in the same order, as those of the unshared sequence, and so are the row's bits.

mod kernels;

use std::ops::Range;

use super::buffer::Buffer;
use super::parallel::make_and_consume;
use super::simd::prefetch;
use kernels::{Inputs, attend_backward};
pub use kernels::{SCORE_ROWS, Shape, Transposed, attend};

/// Consecutive packed rows, after the rows of an earlier segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub rows: Range<usize>,
    pub parent: Option<usize>,
}

/// The rows that ask, of each segment a range of its rows: all of them, or those whose results are wanted. Their queries and
/// outputs stand one after another in packed order, without the rows between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    ranges: Vec<Range<usize>>,
    rows: Vec<usize>,
}

impl Queries {
    /// Every row.
    pub fn all(segments: &[Segment]) -> Self {
        Self::of_ranges(segments.iter().map(|s| s.rows.clone()).collect())
    }

    /// Of each segment the rows from the first to the last that `wanted` names.
    pub fn covering(segments: &[Segment], wanted: impl IntoIterator<Item = usize>) -> Self {
        let mut ranges: Vec<Range<usize>> = segments.iter().map(|s| s.rows.start..s.rows.start).collect();
        for row in wanted {
            let segment = segments.partition_point(|s| s.rows.end <= row);
            let range = &mut ranges[segment];
            *range = if range.start == range.end { row..row + 1 } else { range.start.min(row)..range.end.max(row + 1) };
        }
        Self::of_ranges(ranges)
    }

    fn of_ranges(ranges: Vec<Range<usize>>) -> Self {
        let rows = ranges.iter().flat_map(Clone::clone).collect();
        Self { ranges, rows }
    }

    /// The packed rows, ascending.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Where a packed row that asks stands among those that do.
    ///
    /// # Panics
    /// When it doesn't ask.
    pub fn place(&self, row: usize) -> usize {
        self.rows.binary_search(&row).expect("a row that asks")
    }

    /// The places of a segment's rows.
    fn places(&self, segment: usize) -> Range<usize> {
        let start = self.rows.partition_point(|r| *r < self.ranges[segment].start);
        start..start + self.ranges[segment].len()
    }
}

/// `heads` query heads share `kv_heads` key and value heads in equal consecutive groups (Ainslie et al. 2023).
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
    /// Floats from a row to the next of one head's own matrices: whole vectors of 16.
    pub fn width(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }
    /// Scores are multiplied by 1 / √head_dim.
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
    /// For queries whose first sees `first` keys.
    pub fn shape(&self, first: usize) -> Shape {
        Shape { dim: self.head_dim, width: self.width(), first, scale: self.scale() }
    }
}

/// The queries (asking rows, heads · head_dim), keys and values (rows, kv_heads · head_dim) of a packed batch, after the rotary turn.
#[derive(Clone, Copy)]
pub struct Projections<'a> {
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

/// (rows.len(), width): the columns of one head from the rows of `x`: (_, stride), zeros after them.
fn gather(x: &[f32], stride: usize, rows: &[usize], head: usize, heads: Heads) -> Buffer {
    let (dim, width) = (heads.head_dim, heads.width());
    let mut out = if dim == width { Buffer::unspecified(rows.len() * width) } else { Buffer::zeros(rows.len() * width) };
    for (i, (out, r)) in out.chunks_exact_mut(width).zip(rows).enumerate() {
        prefetch_row(x, rows.get(i + ROWS_AHEAD).map_or(0, |r| r * stride + head * dim), dim);
        out[..dim].copy_from_slice(&x[r * stride + head * dim..][..dim]);
    }
    out
}

/// One head's columns are short pieces far apart, which a CPU doesn't foresee: they are asked for so many rows ahead.
const ROWS_AHEAD: usize = 8;

fn prefetch_row(x: &[f32], at: usize, dim: usize) {
    (0..dim).step_by(16).for_each(|d| prefetch(x.as_ptr().wrapping_add(at + d)));
}

/// Number of f32 from one row to the next of a transposed matrix over `keys` keys: whole vectors of 16, and no multiple of 128,
/// which would put many rows into few sets of the cache.
pub fn stride(keys: usize) -> usize {
    let whole = keys.next_multiple_of(16);
    if whole.is_multiple_of(128) { whole + 16 } else { whole }
}

/// (head_dim, stride(rows)): the transpose of a (rows, width) matrix.
fn transpose(x: &[f32], heads: Heads) -> Buffer {
    let (dim, width) = (heads.head_dim, heads.width());
    let stride = stride(x.len() / width);
    let mut out = Buffer::unspecified(dim * stride);
    kernels::transpose(x, width, dim, stride, &mut out);
    out
}

/// `out`: (asking rows, heads · head_dim) ← softmax(q kᵀ / √head_dim) v over each row's keys.
pub fn forward(segments: &[Segment], queries: &Queries, heads: Heads, from: Projections, out: &mut [f32]) {
    let make = |unit: usize| forward_unit(segments, queries, unit / heads.kv_heads, unit % heads.kv_heads, heads, from);
    make_and_consume(segments.len() * heads.kv_heads, make, |unit, attended: Buffer| {
        let places = queries.places(unit / heads.kv_heads);
        for (h, attended) in attended.chunks_exact((places.len() * heads.width()).max(1)).enumerate() {
            let head = (unit % heads.kv_heads) * heads.group() + h;
            scatter(attended, places.clone(), head, heads.query_width(), heads, out);
        }
    });
}

/// Writes a head's (rows, width) to its columns of `out`: (_, stride).
fn scatter(head_rows: &[f32], rows: impl Iterator<Item = usize>, head: usize, stride: usize, heads: Heads, out: &mut [f32]) {
    let dim = heads.head_dim;
    for (values, row) in head_rows.chunks_exact(heads.width()).zip(rows) {
        // The rows that a segment's heads write follow each other.
        prefetch_row(out, (row + ROWS_AHEAD) * stride + head * dim, dim);
        out[row * stride + head * dim..][..dim].copy_from_slice(&values[..dim]);
    }
}

/// The attended values of one segment for the query heads of one key head: (group, asking rows, width).
fn forward_unit(
    segments: &[Segment],
    queries: &Queries,
    segment: usize,
    kv_head: usize,
    heads: Heads,
    from: Projections,
) -> Buffer {
    let places: Vec<usize> = queries.places(segment).collect();
    if places.is_empty() {
        return Buffer::unspecified(0);
    }
    let keys = seen_keys(segments, queries, segment);
    let kt = transpose(&gather(from.k, heads.key_width(), &keys, kv_head, heads), heads);
    let kt = Transposed { data: &kt, stride: stride(keys.len()) };
    let v = gather(from.v, heads.key_width(), &keys, kv_head, heads);
    let shape = heads.shape(keys.len() - places.len() + 1);
    let mut scores = Buffer::unspecified(SCORE_ROWS * kt.stride);
    let mut out = Buffer::unspecified(heads.group() * places.len() * heads.width());
    for (h, out) in out.chunks_exact_mut(places.len() * heads.width()).enumerate() {
        let q = gather(from.q, heads.query_width(), &places, kv_head * heads.group() + h, heads);
        attend(shape, &q, kt, &v, &mut scores, out);
    }
    out
}

/// The packed rows that the last asking row of a segment attends to.
fn seen_keys(segments: &[Segment], queries: &Queries, segment: usize) -> Vec<usize> {
    let mut keys = key_rows(segments, segment);
    keys.truncate(keys.len() - (segments[segment].rows.end - queries.ranges[segment].end));
    keys
}

/// Gradients of the three projections, in their layouts.
pub struct ProjectionGradients {
    pub dq: Buffer,
    pub dk: Buffer,
    pub dv: Buffer,
}

/// Gradients of [`forward`] for `dout`: (asking rows, heads · head_dim).
///
/// With P the softmax: dV = Pᵀ dO, dP = dO Vᵀ, dS = P · (dP − Σ P dP), dQ = dS K / √d, dK = dSᵀ Q / √d. A key's gradient
/// is one chain over the queries that see it: segments of its tree in packed order, query heads of its group ascending, rows
/// ascending.
pub fn backward(segments: &[Segment], queries: &Queries, heads: Heads, from: Projections, dout: &[f32]) -> ProjectionGradients {
    let trees = trees(segments);
    let [dq, dk, dv] = [from.q, from.k, from.v].map(|x| Buffer::unspecified(x.len()));
    let mut grads = ProjectionGradients { dq, dk, dv };
    let make = |unit: usize| {
        let tree = &trees[unit / heads.kv_heads];
        let mut unit = TreeBackward::new(segments, queries, tree, unit % heads.kv_heads, heads, from, dout);
        unit.run();
        unit
    };
    make_and_consume(trees.len() * heads.kv_heads, make, |_, unit| unit.scatter(&mut grads));
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
    queries: &'a Queries,
    tree: &'a [usize],
    kv_head: usize,
    heads: Heads,
    from: Projections<'a>,
    dout: &'a [f32],
    /// Packed rows of the tree, ascending: `dk` and `dv` are over these.
    rows: Vec<usize>,
    /// Places of the tree's asking rows, ascending: `dq` is over these.
    places: Vec<usize>,
    /// (group, asking rows, width)
    dq: Buffer,
    /// (rows, width)
    dk: Buffer,
    dv: Buffer,
}

impl<'a> TreeBackward<'a> {
    fn new(
        segments: &'a [Segment],
        queries: &'a Queries,
        tree: &'a [usize],
        kv_head: usize,
        heads: Heads,
        from: Projections<'a>,
        dout: &'a [f32],
    ) -> Self {
        let rows: Vec<usize> = tree.iter().flat_map(|s| segments[*s].rows.clone()).collect();
        let places: Vec<usize> = tree.iter().flat_map(|s| queries.places(*s)).collect();
        let dq = Buffer::unspecified(heads.group() * places.len() * heads.width());
        let [dk, dv] = [0, 1].map(|_| Buffer::zeros(rows.len() * heads.width()));
        Self { segments, queries, tree, kv_head, heads, from, dout, rows, places, dq, dk, dv }
    }

    fn run(&mut self) {
        let mut first = 0;
        for &segment in self.tree {
            let places: Vec<usize> = self.queries.places(segment).collect();
            if !places.is_empty() {
                self.segment(segment, &places, first * self.heads.width());
            }
            first += places.len();
        }
    }

    fn scatter(&self, grads: &mut ProjectionGradients) {
        let (heads, rows) = (self.heads, || self.rows.iter().copied());
        for (h, dq) in self.dq.chunks_exact((self.places.len() * heads.width()).max(1)).enumerate() {
            let head = self.kv_head * heads.group() + h;
            scatter(dq, self.places.iter().copied(), head, heads.query_width(), heads, &mut grads.dq);
        }
        scatter(&self.dk, rows(), self.kv_head, heads.key_width(), heads, &mut grads.dk);
        scatter(&self.dv, rows(), self.kv_head, heads.key_width(), heads, &mut grads.dv);
    }

    /// One segment's queries, at `places`; their gradients begin at `first` in each head's part of `dq`.
    fn segment(&mut self, segment: usize, places: &[usize], first: usize) {
        let (heads, width) = (self.heads, self.heads.width());
        let keys = seen_keys(self.segments, self.queries, segment);
        let k = gather(self.from.k, heads.key_width(), &keys, self.kv_head, heads);
        let v = gather(self.from.v, heads.key_width(), &keys, self.kv_head, heads);
        let (kt, vt) = (transpose(&k, heads), transpose(&v, heads));
        let [kt, vt] = [&kt, &vt].map(|data| Transposed { data, stride: stride(keys.len()) });
        // The keys' gradients so far, continued by this segment's queries.
        let of_tree: Vec<usize> = keys.iter().map(|r| self.rows.binary_search(r).expect("a row of this tree")).collect();
        let [mut dk, mut dv] = [&self.dk, &self.dv].map(|x| gather_rows(x, &of_tree, width));
        let shape = heads.shape(keys.len() - places.len() + 1);
        let mut p = Buffer::unspecified(places.len() * kt.stride);
        let mut ds = Buffer::unspecified(places.len() * kt.stride);
        for (h, dq) in self.dq.chunks_exact_mut(self.places.len() * width).enumerate() {
            let of_head = |x| gather(x, heads.query_width(), places, self.kv_head * heads.group() + h, heads);
            let (q, dout) = (of_head(self.from.q), of_head(self.dout));
            let inputs = Inputs { q: &q, dout: &dout, k: &k, kt, vt };
            attend_backward(shape, inputs, &mut p, &mut ds, &mut dq[first..][..places.len() * width], &mut dk, &mut dv);
        }
        for (i, place) in of_tree.iter().enumerate() {
            self.dk[place * width..][..width].copy_from_slice(&dk[i * width..][..width]);
            self.dv[place * width..][..width].copy_from_slice(&dv[i * width..][..width]);
        }
    }
}

/// (rows.len(), width): whole rows of `x`.
pub fn gather_rows(x: &[f32], rows: &[usize], width: usize) -> Buffer {
    let mut out = Buffer::unspecified(rows.len() * width);
    for (out, r) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&x[r * width..][..width]);
    }
    out
}

#[cfg(test)]
mod tests;
