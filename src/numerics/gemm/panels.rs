//! Operands as a tile reads them: views over borrowed memory, and panels copied from it.

use std::mem::MaybeUninit;

use super::tile::Tiled;
use crate::simd::{F32x16, LANES, prefetch};

#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) data: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl View {
    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
    /// The view that starts at (row, column); stays inside the slice as long as that element is.
    pub(crate) fn from(self, row: usize, column: usize) -> Self {
        Self { data: self.data.wrapping_add(row * self.row_stride + column * self.col_stride), ..self }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) data: *mut f32,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl Out {
    pub(super) fn from(self, row: usize, column: usize) -> Self {
        Self { data: self.data.wrapping_add(row * self.row_stride + column * self.col_stride), ..self }
    }
}

/// One operand as panels of `width` lanes (rows of A, columns of B): lanes below `in_place` read where they are, the others copied
/// so that the lanes of one `p` lie together.
pub(super) struct Panels {
    view: View,
    copied: *const f32,
    lanes: usize,
    depth: usize,
    width: usize,
    unit: usize,
    in_place: usize,
}

impl Panels {
    /// # Safety
    /// `view` must be readable for `lanes` rows and `depth` columns. The panels point into `buffer` and into the view.
    #[inline(always)]
    pub(super) unsafe fn new<V: Tiled>(
        view: View,
        lanes: usize,
        depth: usize,
        width: usize,
        unit: usize,
        in_place: usize,
        buffer: &mut Vec<f32>,
    ) -> Self {
        let room = (lanes - in_place).next_multiple_of(unit) * depth;
        let copied = aligned_room(buffer, room);
        let panels = Self { view, copied, lanes, depth, width, unit, in_place };
        for lane in (in_place..lanes).step_by(width) {
            let panel_width = panels.panel_width(lane);
            // SAFETY: the lanes are in the view; the panel lies within the room, as panels before it took width × depth each.
            unsafe {
                let to = copied.add((lane - in_place) * depth);
                V::pack(view.from(lane, 0), (lanes - lane).min(width), depth, to, panel_width);
            }
        }
        panels
    }

    /// What [`Panels::new`] copied into `copied`, for all lanes from the first of a panel on.
    pub(super) fn of_copied(copied: *const f32, lanes: usize, depth: usize, width: usize, unit: usize) -> Self {
        let view = View { data: copied, row_stride: 0, col_stride: 0 };
        Self { view, copied, lanes, depth, width, unit, in_place: 0 }
    }

    /// The last panel is narrower: as wide as what is left, in whole units.
    #[inline(always)]
    fn panel_width(&self, lane: usize) -> usize {
        (self.lanes - lane).next_multiple_of(self.unit).min(self.width)
    }

    /// The lanes from `lane` to the end of their panel: a view of these (rows) along `p` (columns).
    #[inline(always)]
    pub(super) fn panel(&self, lane: usize) -> View {
        if lane < self.in_place {
            return self.view.from(lane, 0);
        }
        let within = (lane - self.in_place) % self.width;
        let first = lane - within;
        let data = self.copied.wrapping_add((first - self.in_place) * self.depth);
        View { data, row_stride: 1, col_stride: self.panel_width(first) }.from(within, 0)
    }
}

/// At least `length` elements at an address divisible by 64, kept for the next call.
fn aligned_room(buffer: &mut Vec<f32>, length: usize) -> *mut f32 {
    if buffer.len() < length + LANES {
        buffer.resize(length + LANES, 0.0);
    }
    let start = aligned_start(buffer);
    buffer.as_mut_ptr().wrapping_add(start)
}

/// Where [`aligned_room`] starts.
pub(super) fn aligned_start(buffer: &[f32]) -> usize {
    (64 - buffer.as_ptr().addr() % 64) / size_of::<f32>()
}

/// Copies `lanes` rows of `depth` elements to `to[p * width + lane]`; lanes up to `width` are zero.
///
/// # Safety
/// `from` must be readable for `lanes` rows and `depth` columns, `to` writable for `depth * width` elements.
#[inline(always)]
pub(super) unsafe fn pack<V: F32x16>(from: View, lanes: usize, depth: usize, to: *mut f32, width: usize) {
    // SAFETY: every index below is under the bounds that the caller vouches for.
    unsafe {
        if lanes < width {
            for p in 0..depth {
                std::ptr::write_bytes(to.add(p * width + lanes), 0, width - lanes);
            }
        }
        if from.row_stride == 1 {
            return match lanes {
                32 => copy::<32>(from, depth, to, width),
                16 => copy::<16>(from, depth, to, width),
                12 => copy::<12>(from, depth, to, width),
                6 => copy::<6>(from, depth, to, width),
                _ => (0..lanes).for_each(|lane| copy::<1>(from.from(lane, 0), depth, to.add(lane), width)),
            };
        }
        let (whole_lanes, whole_depth) = (lanes - lanes % 4, depth - depth % 4);
        let whole_vectors = if from.col_stride == 1 { lanes - lanes % LANES } else { 0 };
        let mut room = Room::uninit();
        for lane in (0..whole_vectors).step_by(LANES) {
            for p in (0..whole_depth).step_by(4) {
                let rows = nearby::<V>(from.from(lane, 0), p, depth, LANES, &mut room);
                let columns = V::load_four_columns(rows.data, rows.row_stride);
                for (q, column) in columns.into_iter().enumerate() {
                    column.store_pointer(to.add((p + q) * width + lane));
                }
            }
        }
        for lane in (whole_vectors..whole_lanes).step_by(4) {
            for p in (0..whole_depth).step_by(4) {
                let source = from.data.add(lane * from.row_stride + p * from.col_stride);
                let x: [[f32; 4]; 4] =
                    std::array::from_fn(|l| std::array::from_fn(|q| *source.add(l * from.row_stride + q * from.col_stride)));
                let turned: [[f32; 4]; 4] = std::array::from_fn(|q| [x[0][q], x[1][q], x[2][q], x[3][q]]);
                for (q, lanes) in turned.into_iter().enumerate() {
                    to.add((p + q) * width + lane).cast::<[f32; 4]>().write_unaligned(lanes);
                }
            }
        }
        for lane in 0..lanes {
            for p in if lane < whole_lanes { whole_depth } else { 0 }..depth {
                *to.add(p * width + lane) = *from.data.add(lane * from.row_stride + p * from.col_stride);
            }
        }
    }
}

/// Columns that rows are asked for ahead: four cache lines.
const AHEAD: usize = 4 * LANES;
/// Columns that rows are copied at a time.
const RUN: usize = 8 * LANES;
/// From one copied row to the next; not a multiple of what would put them into one set of the cache.
const ROOM_STRIDE: usize = RUN + LANES;
pub(super) type Room = MaybeUninit<[f32; LANES * ROOM_STRIDE]>;

/// Sixteen rows of `view` from column `p`, a multiple of four, on: where they are, or in `room`. To be called for every fourth
/// `p`, ascending; then for the sixteen rows that start `next` rows further on.
///
/// So many streams at once are more than a CPU foresees: what comes next is asked for. Rows that lie a multiple of 2 kB apart
/// share two sets of the first-level cache, which can't hold sixteen of them: of these, runs are copied one row after the other.
///
/// # Safety
/// `view` must be readable for sixteen rows, along memory, and `depth` columns.
#[inline(always)]
pub(super) unsafe fn nearby<V: F32x16>(view: View, p: usize, depth: usize, next: usize, room: &mut Room) -> View {
    let copied = if view.row_stride.is_multiple_of(512) { depth - depth % LANES } else { 0 };
    if p < copied {
        let room = room.as_mut_ptr().cast::<f32>();
        if p.is_multiple_of(RUN) {
            for row in 0..LANES {
                for column in (0..RUN.min(copied - p)).step_by(LANES) {
                    // SAFETY: sixteen columns from p + column are below `depth`, and in the room of this row.
                    unsafe {
                        let line = V::load_pointer(view.from(row, p + column).data);
                        line.store_pointer(room.add(row * ROOM_STRIDE + column));
                    }
                }
            }
        }
        // Each of a run's calls asks for an equal part of the next run.
        let (run, part) = (p - p % RUN + RUN, p % RUN * LANES);
        let ahead = if run < depth { view.from(0, run) } else { view.from(next, 0) }.from(part / RUN, part % RUN);
        (0..4 * LANES).step_by(LANES).for_each(|column| prefetch(ahead.from(0, column).data));
        return View { data: room, row_stride: ROOM_STRIDE, col_stride: 1 }.from(0, p % RUN);
    }
    if p.is_multiple_of(LANES) {
        let ahead = if p + AHEAD < depth { view.from(0, p + AHEAD) } else { view.from(next, (p + AHEAD).saturating_sub(depth)) };
        (0..LANES).for_each(|row| prefetch(ahead.from(row, 0).data));
    }
    view.from(0, p)
}

/// Copies `N` lanes that lie side by side; a constant number, so that no call stands in the loop.
///
/// # Safety
/// As [`pack`] with `N` lanes.
#[inline(always)]
unsafe fn copy<const N: usize>(from: View, depth: usize, to: *mut f32, width: usize) {
    for p in 0..depth {
        // SAFETY: p is below depth.
        unsafe {
            let lanes = from.data.wrapping_add(p * from.col_stride).cast::<[f32; N]>().read_unaligned();
            to.wrapping_add(p * width).cast::<[f32; N]>().write_unaligned(lanes);
        }
    }
}
