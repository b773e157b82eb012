//! Token embedding: rows of a table, and the scatter of gradients back to them.

use super::device::{self, rows};

/// `out`: (tokens, hidden) ← the rows of `table`: (vocabulary, hidden) that `tokens` name.
pub fn forward(table: &[f32], hidden: usize, tokens: &[u32], out: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::gather(device, table, tokens, hidden, out);
    }
    for (row, &token) in out.chunks_exact_mut(hidden).zip(tokens) {
        row.copy_from_slice(&table[token as usize * hidden..][..hidden]);
    }
}

/// `dtable` += the rows of `dout`: (tokens, hidden), each added to its token's row, in packed order.
pub fn backward(dout: &[f32], hidden: usize, tokens: &[u32], dtable: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::scatter_add(device, dout, tokens, hidden, dtable);
    }
    for (row, &token) in dout.chunks_exact(hidden).zip(tokens) {
        let sums = &mut dtable[token as usize * hidden..][..hidden];
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
