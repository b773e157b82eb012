//! Attention on a device: the packed tree as lists of tiles of queries and of keys.

use std::ptr;

use super::{Heads, ProjectionGradients, Projections, Queries, Segment, length, seen_keys};
use crate::buffer::Buffer;
use crate::device::kernels::{
    ATTEND, ATTEND_BACKWARD_KEYS, ATTEND_BACKWARD_QUERIES, Attention, ByDim, Kernel, KeyTile, QueryTile, Viewer, int,
};
use crate::device::{Device, Launch};

/// Queries of a tile, and keys of one.
const TILE: usize = 16;

/// Whether heads are narrow enough for the kernels.
pub fn fits(heads: Heads) -> bool {
    heads.head_dim <= ATTEND[2].0
}

fn by_dim(kernels: &ByDim, dim: usize) -> &'static Kernel<Attention> {
    kernels.iter().find(|(most, _)| dim <= *most).expect("heads that fit").1
}

/// What a batch's segments ask and see.
struct Plan {
    /// Packed rows of the keys that the last query of each asking segment sees, one segment's after another's.
    keys: Vec<u32>,
    query_tiles: Vec<QueryTile>,
    key_tiles: Vec<KeyTile>,
    viewers: Vec<Viewer>,
}

impl Plan {
    fn new(segments: &[Segment], queries: &Queries, heads: Heads) -> Self {
        let (mut keys, mut query_tiles) = (Vec::new(), Vec::new());
        // For each segment the queries that see its keys, and how many keys its sequence has before it.
        let mut seen_by: Vec<Vec<Viewer>> = vec![Vec::new(); segments.len()];
        let mut before = Vec::with_capacity(segments.len());
        for (s, segment) in segments.iter().enumerate() {
            before.push(segment.parent.map_or(0, |parent| before[parent] + segments[parent].rows.len()));
            let places = queries.places(s);
            if places.is_empty() {
                continue;
            }
            let (at, ranges) = (int(keys.len()), seen_keys(segments, queries, s, heads));
            keys.extend(ranges.iter().flat_map(Clone::clone).map(|row| int(row) as u32));
            let shape = heads.shape(places.len(), length(&ranges));
            let all =
                Viewer { place: int(places.start), count: int(places.len()), first: int(shape.first), step: int(shape.step) };
            let tile = |base: usize| QueryTile {
                keys: at,
                place: all.place + int(base),
                count: all.count.min(int(base + TILE)) - int(base),
                first: all.first + int(base) * all.step,
                step: all.step,
            };
            query_tiles.extend((0..places.len()).step_by(TILE).map(tile));
            let mut ancestor = Some(s);
            while let Some(of) = ancestor {
                seen_by[of].push(all);
                ancestor = segments[of].parent;
            }
        }
        let (mut key_tiles, mut viewers) = (Vec::new(), Vec::new());
        for ((segment, seen_by), before) in segments.iter().zip(seen_by).zip(before) {
            let (from, to) = (int(viewers.len()), int(viewers.len() + seen_by.len()));
            viewers.extend(seen_by);
            key_tiles.extend((0..segment.rows.len()).step_by(TILE).map(|base| KeyTile {
                row: int(segment.rows.start + base),
                index: int(before + base),
                count: int(TILE.min(segment.rows.len() - base)),
                viewers: from,
                viewers_end: to,
            }));
        }
        Self { keys, query_tiles, key_tiles, viewers }
    }
}

fn parameters<'a>(launch: &mut Launch<'a>, plan: &Plan, heads: Heads, from: Projections<'a>) -> Attention {
    let [q, k, v] = [from.q, from.k, from.v].map(|x| launch.input(x));
    let nowhere = ptr::null_mut();
    Attention {
        q,
        k,
        v,
        dout: ptr::null(),
        out: nowhere,
        dq: nowhere,
        dk: nowhere,
        dv: nowhere,
        kept: nowhere,
        keys: launch.list(&plan.keys),
        query_tiles: launch.list(&plan.query_tiles),
        key_tiles: launch.list(&plan.key_tiles),
        viewers: launch.list(&plan.viewers),
        heads: int(heads.heads),
        group: int(heads.group()),
        dim: int(heads.head_dim),
        query_width: int(heads.query_width()),
        key_width: int(heads.key_width()),
        window: heads.window.map_or(0, int),
        scale: heads.scale(),
        cap: heads.cap.unwrap_or(0.0),
    }
}

/// [`super::forward`].
pub fn forward(
    device: &'static Device,
    segments: &[Segment],
    queries: &Queries,
    heads: Heads,
    from: Projections,
    out: &mut [f32],
) {
    let (plan, mut launch) = (Plan::new(segments, queries, heads), Launch::on(device));
    let of = parameters(&mut launch, &plan, heads, from);
    let of = Attention { out: launch.output(out), ..of };
    launch.start(by_dim(&ATTEND, heads.head_dim), plan.query_tiles.len() * heads.heads, &of);
    launch.finish();
}

/// [`super::backward`].
pub fn backward(
    device: &'static Device,
    segments: &[Segment],
    queries: &Queries,
    heads: Heads,
    from: Projections,
    dout: &[f32],
) -> ProjectionGradients {
    let [mut dq, mut dk, mut dv] = [from.q, from.k, from.v].map(|x| Buffer::unspecified(x.len()));
    let (plan, mut launch) = (Plan::new(segments, queries, heads), Launch::on(device));
    let of = parameters(&mut launch, &plan, heads, from);
    let [dq_at, dk_at, dv_at] = [&mut dq, &mut dk, &mut dv].map(|x| launch.output(x));
    let kept = launch.scratch(3 * queries.rows.len() * heads.heads);
    let of = Attention { dout: launch.input(dout), dq: dq_at, dk: dk_at, dv: dv_at, kept, ..of };
    launch.start(by_dim(&ATTEND_BACKWARD_QUERIES, heads.head_dim), plan.query_tiles.len() * heads.heads, &of);
    launch.start(by_dim(&ATTEND_BACKWARD_KEYS, heads.head_dim), plan.key_tiles.len() * heads.kv_heads, &of);
    launch.finish();
    ProjectionGradients { dq, dk, dv }
}
