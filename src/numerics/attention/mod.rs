//! Attention over packed trees of segments (NUMERICS 5), forward and backward.
//!
//! A segment's rows attend to every row of its parent chain, then causally to their own. The keys of a row are therefore the
//! same list, in the same order, as those of the unshared sequence, and so are the row's bits. A sliding window gives the keys
//! before it the score −∞, so that their weights are 0: the others keep their lanes.
//!
//! Of an encoder every row attends to its whole segment, which then has no parent: what follows a row changes it.

mod cache;
mod kernels;
mod on_device;

use std::marker::PhantomData;
use std::ops::Range;

use super::buffer::Buffer;
use super::device;
use super::matrix::gather_rows;
use super::parallel::for_each;
use super::simd::prefetch;
pub use cache::Cache;
use kernels::{Inputs, Rows, SCORE_ROWS, Shape, Target, Transposed, attend, attend_backward};

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

/// `heads` query heads share `kv_heads` key and value heads in equal consecutive groups (Ainslie et al. 2023), and see the last
/// `window` keys up to their own, or all of them; in both directions, an encoder's, they see all keys of their segment, and there is no window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
    pub bidirectional: bool,
    /// What scores are multiplied by; none: 1 / √head_dim.
    pub scale: Option<f32>,
    /// What scores are soft-capped at (see [`super::softcap`]); none: they aren't.
    pub cap: Option<f32>,
}

impl Heads {
    /// Query heads for each key head.
    pub fn group(&self) -> usize {
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
    fn scale(&self) -> f32 {
        self.scale.unwrap_or(1.0 / (self.head_dim as f32).sqrt())
    }
    /// Whether a head's columns are whole vectors, so that kernels may work on them where they are.
    fn whole(&self) -> bool {
        self.head_dim == self.width()
    }
    /// For the `rows` last queries of `keys`, or for any so many of an encoder's.
    fn shape(&self, rows: usize, keys: usize) -> Shape {
        let (first, step) = if self.bidirectional { (keys, 0) } else { (keys - rows + 1, 1) };
        let window = self.window.unwrap_or(usize::MAX);
        Shape { rows, dim: self.head_dim, width: self.width(), first, step, window, scale: self.scale(), cap: self.cap }
    }
    /// For the queries of one position whose heads share their keys.
    fn shape_of_position(&self, keys: usize) -> Shape {
        Shape { rows: self.group(), first: keys, step: 0, ..self.shape(1, keys) }
    }
}

/// The queries (asking rows, heads · head_dim), keys and values (rows, kv_heads · head_dim) of a packed batch, after the rotary turn.
#[derive(Clone, Copy)]
pub struct Projections<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

/// The packed rows that the last asking row of a segment attends to, its parent chain from the root, then its own: ranges that
/// don't touch each other.
///
/// # Panics
/// When an encoder's segment has a parent: its rows would have to see it.
fn seen_keys(segments: &[Segment], queries: &Queries, segment: usize, heads: Heads) -> Vec<Range<usize>> {
    if heads.bidirectional {
        assert!(
            segments[segment].parent.is_none() && heads.window.is_none(),
            "an encoder shares no beginnings and has no window"
        );
        return vec![segments[segment].rows.clone()];
    }
    let mut chain = vec![segment];
    while let Some(parent) = segments[chain[chain.len() - 1]].parent {
        chain.push(parent);
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for s in chain.into_iter().rev() {
        let end = if s == segment { queries.ranges[s].end } else { segments[s].rows.end };
        let rows = segments[s].rows.start..end;
        match ranges.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => ranges.push(rows),
        }
    }
    ranges
}

fn length(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).sum()
}

/// One head's columns of some rows of a matrix: where they are, or copied to stand together. Where they are, rows often share
/// few sets of the cache: that is for reading once.
enum HeadRows<'a> {
    There(Rows<'a>),
    Copied(Buffer, usize),
}

impl<'a> HeadRows<'a> {
    /// Of `x`: (_, stride).
    fn new(x: &'a [f32], stride: usize, ranges: &[Range<usize>], head: usize, heads: Heads) -> Self {
        match ranges {
            [only] if heads.whole() => Self::There(Rows { data: &x[only.start * stride + head * heads.head_dim..], stride }),
            _ => Self::Copied(gather(x, stride, ranges, head, heads), heads.width()),
        }
    }

    fn rows(&self) -> Rows<'_> {
        match self {
            Self::There(rows) => *rows,
            Self::Copied(data, stride) => Rows { data, stride: *stride },
        }
    }
}

/// (rows, width): the columns of one head from the rows of `x`: (_, stride), zeros after them.
fn gather(x: &[f32], stride: usize, ranges: &[Range<usize>], head: usize, heads: Heads) -> Buffer {
    let (dim, width, rows) = (heads.head_dim, heads.width(), length(ranges));
    let mut out = if heads.whole() { Buffer::unspecified(rows * width) } else { Buffer::zeros(rows * width) };
    for (out, r) in out.chunks_exact_mut(width).zip(ranges.iter().flat_map(Clone::clone)) {
        prefetch_row(x, (r + ROWS_AHEAD) * stride + head * dim, dim);
        out[..dim].copy_from_slice(&x[r * stride + head * dim..][..dim]);
    }
    out
}

/// What [`gather`] made.
fn together(gathered: &[f32], heads: Heads) -> Rows<'_> {
    Rows { data: gathered, stride: heads.width() }
}

/// One head's columns are short pieces far apart, which a CPU doesn't foresee: they are asked for so many rows ahead.
const ROWS_AHEAD: usize = 8;

fn prefetch_row(x: &[f32], at: usize, dim: usize) {
    (0..dim).step_by(16).for_each(|d| prefetch(x.as_ptr().wrapping_add(at + d)));
}

/// The transpose of one head's rows.
fn transpose(x: Rows, rows: usize, heads: Heads) -> Buffer {
    let mut out = Buffer::unspecified(Transposed::length(rows, heads.head_dim));
    kernels::transpose(x, rows, heads.head_dim, &mut out);
    out
}

/// A matrix of which several threads write different heads' columns or different rows.
#[derive(Clone, Copy)]
struct Shared<'a> {
    data: *mut f32,
    len: usize,
    stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is written only through `part`, whose callers vouch that no two write the same elements.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(x: &'a mut [f32], stride: usize) -> Self {
        Self { data: x.as_mut_ptr(), len: x.len(), stride, borrowed: PhantomData }
    }

    /// Calls `write` with a head's columns of `rows`, (rows, width) whose first `dim` columns become those of the matrix.
    ///
    /// # Safety
    /// Nobody else may touch these columns of these rows meanwhile.
    unsafe fn write(self, rows: Range<usize>, head: usize, heads: Heads, write: impl FnOnce(Target)) {
        if rows.is_empty() {
            return;
        }
        let (dim, width, start) = (heads.head_dim, heads.width(), rows.start * self.stride + head * heads.head_dim);
        assert!(start + (rows.len() - 1) * self.stride + dim <= self.len);
        let target = Target { data: self.data.wrapping_add(start), stride: self.stride, rows: rows.len(), width: dim };
        if heads.whole() {
            return write(target);
        }
        let mut padded = Buffer::unspecified(rows.len() * width);
        write(Target::of(&mut padded, width));
        target.copy_rows(&padded, width);
    }
}

/// `out`: (asking rows, heads · head_dim) ← softmax(q kᵀ · scale) v over each row's keys, with capped scores where `heads` say so.
pub fn forward(segments: &[Segment], queries: &Queries, heads: Heads, from: Projections, out: &mut [f32]) {
    assert_eq!(out.len(), queries.rows.len() * heads.query_width(), "one output for each query");
    if let Some(device) = device::active().filter(|_| on_device::fits(heads)) {
        return on_device::forward(device, segments, queries, heads, from, out);
    }
    let out = Shared::new(out, heads.query_width());
    for_each(segments.len() * heads.kv_heads, |unit| {
        forward_unit(segments, queries, unit / heads.kv_heads, unit % heads.kv_heads, heads, from, out);
    });
}

/// The attended values of one segment for the query heads of one key head.
fn forward_unit(
    segments: &[Segment],
    queries: &Queries,
    segment: usize,
    kv_head: usize,
    heads: Heads,
    from: Projections,
    out: Shared,
) {
    let places = queries.places(segment);
    if places.is_empty() {
        return;
    }
    let keys = seen_keys(segments, queries, segment, heads);
    let k = HeadRows::new(from.k, heads.key_width(), &keys, kv_head, heads);
    let v = gather(from.v, heads.key_width(), &keys, kv_head, heads);
    let keys = length(&keys);
    let (kt, v) = (transpose(k.rows(), keys, heads), together(&v, heads));
    let shape = heads.shape(places.len(), keys);
    let mut scores = Buffer::unspecified(SCORE_ROWS * shape.score_stride());
    for head in kv_head * heads.group()..(kv_head + 1) * heads.group() {
        let q = HeadRows::new(from.q, heads.query_width(), std::slice::from_ref(&places), head, heads);
        let attend = |out| attend(shape, q.rows(), Transposed(&kt), v, &mut scores, out);
        // SAFETY: no other unit has this head and these rows.
        unsafe { out.write(places.clone(), head, heads, attend) };
    }
}

/// Gradients of the three projections, in their layouts.
pub struct ProjectionGradients {
    pub dq: Buffer,
    pub dk: Buffer,
    pub dv: Buffer,
}

/// Gradients of [`forward`] for `dout`: (asking rows, heads · head_dim).
///
/// With P the softmax: dV = Pᵀ dO, dP = dO Vᵀ, dS = P · (dP − Σ P dP) · scale, dQ = dS K, dK = dSᵀ Q. A key's gradient
/// is one chain over the queries that see it: segments of its tree in packed order, query heads of its group ascending, rows
/// ascending.
pub fn backward(segments: &[Segment], queries: &Queries, heads: Heads, from: Projections, dout: &[f32]) -> ProjectionGradients {
    if let Some(device) = device::active().filter(|_| on_device::fits(heads)) {
        return on_device::backward(device, segments, queries, heads, from, dout);
    }
    let trees = trees(segments);
    let [dq, dk, dv] = [from.q, from.k, from.v].map(|x| Buffer::unspecified(x.len()));
    let mut grads = ProjectionGradients { dq, dk, dv };
    let dq = Shared::new(&mut grads.dq, heads.query_width());
    let [dk, dv] = [&mut grads.dk, &mut grads.dv].map(|x| Shared::new(x, heads.key_width()));
    for_each(trees.len() * heads.kv_heads, |unit| {
        let (tree, kv_head) = (&trees[unit / heads.kv_heads], unit % heads.kv_heads);
        let mut unit = TreeBackward::new(segments, queries, tree, kv_head, heads, from, dout, dq);
        tree.iter().for_each(|segment| unit.segment(*segment));
        // SAFETY: no other unit has this tree's rows and this head.
        unsafe { unit.write_keys(dk, dv) };
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
    queries: &'a Queries,
    tree: &'a [usize],
    kv_head: usize,
    heads: Heads,
    from: Projections<'a>,
    dout: &'a [f32],
    dq: Shared<'a>,
    /// Packed rows of the tree, ascending: `dk` and `dv` are over these.
    rows: Vec<usize>,
    /// (rows, width)
    dk: Buffer,
    dv: Buffer,
}

impl<'a> TreeBackward<'a> {
    #[allow(clippy::too_many_arguments, reason = "the pass, and which part of it")]
    fn new(
        segments: &'a [Segment],
        queries: &'a Queries,
        tree: &'a [usize],
        kv_head: usize,
        heads: Heads,
        from: Projections<'a>,
        dout: &'a [f32],
        dq: Shared<'a>,
    ) -> Self {
        let rows: Vec<usize> = tree.iter().flat_map(|s| segments[*s].rows.clone()).collect();
        let [dk, dv] = [0, 1].map(|_| Buffer::zeros(rows.len() * heads.width()));
        Self { segments, queries, tree, kv_head, heads, from, dout, dq, rows, dk, dv }
    }

    /// Copies the keys' gradients to their rows of the packed batch.
    ///
    /// # Safety
    /// Nobody else may touch this head's columns of the tree's rows meanwhile.
    unsafe fn write_keys(&self, dk: Shared, dv: Shared) {
        let (heads, width) = (self.heads, self.heads.width());
        for (grads, out) in [(&self.dk, dk), (&self.dv, dv)] {
            let mut grads = &grads[..];
            for rows in self.tree.iter().map(|s| self.segments[*s].rows.clone()) {
                let (of_segment, rest) = grads.split_at(rows.len() * width);
                // SAFETY: handed on.
                unsafe { out.write(rows, self.kv_head, heads, |target| target.copy_rows(of_segment, width)) };
                grads = rest;
            }
        }
    }

    /// The queries of one segment.
    fn segment(&mut self, segment: usize) {
        let (heads, width) = (self.heads, self.heads.width());
        let places = self.queries.places(segment);
        if places.is_empty() {
            return;
        }
        let ranges = seen_keys(self.segments, self.queries, segment, heads);
        let v = HeadRows::new(self.from.v, heads.key_width(), &ranges, self.kv_head, heads);
        let k = gather(self.from.k, heads.key_width(), &ranges, self.kv_head, heads);
        let (keys, k) = (length(&ranges), together(&k, heads));
        let [kt, vt] = [k, v.rows()].map(|x| transpose(x, keys, heads));
        let [kt, vt] = [&kt, &vt].map(|x| Transposed(x));
        let shape = heads.shape(places.len(), keys);
        let [mut p, mut ds] = [0, 1].map(|_| Buffer::unspecified(places.len() * shape.score_stride()));
        let mut slopes = Buffer::unspecified(shape.slopes());
        // The keys' gradients so far, continued by this segment's queries.
        let mut continued = Continued::new(&self.rows, &ranges, &mut self.dk, &mut self.dv, width);
        let (dk, dv) = continued.both();
        for head in self.kv_head * heads.group()..(self.kv_head + 1) * heads.group() {
            let of_head = |x| gather(x, heads.query_width(), std::slice::from_ref(&places), head, heads);
            let (q, dout) = (of_head(self.from.q), of_head(self.dout));
            let inputs = Inputs { q: together(&q, heads), dout: together(&dout, heads), k, kt, vt };
            let attend = |dq| attend_backward(shape, inputs, &mut p, &mut ds, &mut slopes, dq, dk, dv);
            // SAFETY: no other unit has this head and these rows.
            unsafe { self.dq.write(places.clone(), head, heads, attend) };
        }
        continued.finish();
    }
}

/// The gradients of some of a tree's keys: where they are, if they follow each other, else copied and copied back.
enum Continued<'a> {
    There { dk: &'a mut [f32], dv: &'a mut [f32] },
    Copied { places: Vec<usize>, width: usize, dk: Buffer, dv: Buffer, to: [&'a mut [f32]; 2] },
}

impl<'a> Continued<'a> {
    /// Of the packed rows `keys` among the tree's `rows`, whose gradients `dk` and `dv` are: (rows, width).
    fn new(rows: &[usize], keys: &[Range<usize>], dk: &'a mut [f32], dv: &'a mut [f32], width: usize) -> Self {
        let place = |row: usize| rows.binary_search(&row).expect("a row of this tree");
        let places: Vec<usize> = keys.iter().flat_map(Clone::clone).map(place).collect();
        let range = places[0] * width..(places[places.len() - 1] + 1) * width;
        if range.len() == places.len() * width {
            return Self::There { dk: &mut dk[range.clone()], dv: &mut dv[range] };
        }
        let [of_dk, of_dv] = [&*dk, &*dv].map(|x| gather_rows(x, &places, width));
        Self::Copied { places, width, dk: of_dk, dv: of_dv, to: [dk, dv] }
    }

    fn both(&mut self) -> (&mut [f32], &mut [f32]) {
        match self {
            Self::There { dk, dv } => (dk, dv),
            Self::Copied { dk, dv, .. } => (dk, dv),
        }
    }

    fn finish(self) {
        if let Self::Copied { places, width, dk, dv, to } = self {
            for (from, to) in [dk, dv].iter().zip(to) {
                for (row, place) in from.chunks_exact(width).zip(&places) {
                    to[place * width..][..width].copy_from_slice(row);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
