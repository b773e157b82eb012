//! Loops over disjoint outputs. Which thread takes which piece never enters a result.

use rayon::prelude::*;

/// Below this many elements a thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 14;

/// Calls `f(i, piece)` for each piece of `size` elements of `out`, on the current rayon pool when it has several threads.
pub(crate) fn for_each_piece(out: &mut [f32], size: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if rayon::current_num_threads() == 1 || out.len() < WORTH_A_THREAD {
        out.chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    } else {
        let pieces_a_task = (WORTH_A_THREAD / 4).div_ceil(size);
        out.par_chunks_mut(size).with_min_len(pieces_a_task).enumerate().for_each(|(i, piece)| f(i, piece));
    }
}

/// `consume(i, make(i))` for i in 0..n in ascending order; `make` runs on the current rayon pool when it has several threads.
pub(crate) fn make_and_consume<T: Send>(n: usize, make: impl Fn(usize) -> T + Sync, mut consume: impl FnMut(usize, T)) {
    if rayon::current_num_threads() == 1 || n == 1 {
        (0..n).for_each(|i| consume(i, make(i)));
    } else {
        let made: Vec<T> = (0..n).into_par_iter().map(&make).collect();
        made.into_iter().enumerate().for_each(|(i, item)| consume(i, item));
    }
}
