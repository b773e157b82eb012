//! Loops over disjoint outputs. Which thread takes which piece never enters a result.

use std::cell::Cell;

use rayon::prelude::*;

use super::device;

/// Elementary steps (a multiply-add on one float, say) below which a thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;

thread_local! {
    /// Whether this thread works on a part of [`in_parts`].
    static IN_A_PART: Cell<bool> = const { Cell::new(false) };
}

/// How many threads a loop that starts here may use: those of the current rayon pool, but one within a part of [`in_parts`].
pub fn threads() -> usize {
    if IN_A_PART.get() { 1 } else { rayon::current_num_threads() }
}

/// Calls `f` for as many equal parts of `items` as there are threads, if each has at least `least` items; else for all of them, whose
/// loops then share the threads. A part is the work of one thread: for a chain of many small loops, whose threads would wait for
/// each other after every one.
pub fn in_parts<T: Send>(items: &mut [T], least: usize, f: impl Fn(&mut [T]) + Sync) {
    let threads = threads();
    // A device is one: what it does for all is done sooner than for parts in turn.
    if threads == 1 || items.len() < threads * least || device::active().is_some() {
        return f(items);
    }
    items.par_chunks_mut(items.len().div_ceil(threads)).with_max_len(1).for_each(|part| {
        IN_A_PART.set(true);
        f(part);
        IN_A_PART.set(false);
    });
}

/// Calls `f(first_row, rows)` for pieces that make up `out`: (_, width), on the current rayon pool when it has several threads
/// and the work is worth them. `work`: roughly the elementary steps of one row.
pub fn for_each_rows(out: &mut [f32], width: usize, work: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let mut nothing = vec![(); out.len() / width];
    for_each_rows_with(&mut nothing, out, width, work, |first, _, rows| f(first, rows));
}

/// `out[i]` ← `f(i)`. `work`: roughly the elementary steps of one.
pub fn for_each_with<T: Send>(out: &mut [T], work: usize, f: impl Fn(usize) -> T + Sync) {
    let mut nothing = vec![0.0; out.len()];
    for_each_rows_with(out, &mut nothing, 1, work, |first, out, _| {
        out.iter_mut().enumerate().for_each(|(i, out)| *out = f(first + i));
    });
}

/// [`for_each_rows`] with something of each row's own: `f(first_row, theirs, rows)`.
pub fn for_each_rows_with<T: Send>(
    of_rows: &mut [T],
    out: &mut [f32],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [f32]) + Sync,
) {
    let rows = out.len() / width;
    assert_eq!(of_rows.len(), rows, "one for each row");
    let threads = threads();
    let pieces = (rows * work / WORTH_A_THREAD).min(4 * threads);
    if threads == 1 || pieces < 2 {
        return f(0, of_rows, out);
    }
    let rows_a_piece = rows.div_ceil(pieces);
    let pieces = of_rows.par_chunks_mut(rows_a_piece).zip(out.par_chunks_mut(rows_a_piece * width));
    pieces.enumerate().for_each(|(i, (theirs, piece))| f(i * rows_a_piece, theirs, piece));
}

/// Calls `f` for 0..n, on the current rayon pool when it has several threads.
pub fn for_each(n: usize, f: impl Fn(usize) + Sync) {
    if threads() == 1 || n == 1 {
        (0..n).for_each(f);
    } else {
        // Some take much longer than others.
        (0..n).into_par_iter().with_max_len(1).for_each(&f);
    }
}
