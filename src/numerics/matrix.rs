//! Matrices and their rows copied, added up and scaled.

use super::buffer::Buffer;
use super::device::{self, elementwise, rows};
use super::parallel::for_each_rows;

/// `x` += `y`, of one length.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "a sum of two lengths");
    match device::active() {
        Some(device) => elementwise::add(device, x, y),
        None => x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
    }
}

/// `x` += `value`, each element.
pub fn add_value(x: &mut [f32], value: f32) {
    match device::active() {
        Some(device) => elementwise::add_value(device, x, value),
        None => x.iter_mut().for_each(|x| *x += value),
    }
}

/// `x` *= `by`.
pub fn scale(x: &mut [f32], by: f32) {
    match device::active() {
        Some(device) => elementwise::scale(device, x, by),
        None => x.iter_mut().for_each(|x| *x *= by),
    }
}

/// Every row of `x`: (_, row.len()) ← `row`.
pub fn fill_rows(row: &[f32], x: &mut [f32]) {
    match device::active() {
        Some(device) => rows::fill_rows(device, row, x),
        None => x.chunks_exact_mut(row.len()).for_each(|x| x.copy_from_slice(row)),
    }
}

/// Every row of `x`: (_, row.len()) += `row`.
pub fn add_to_rows(row: &[f32], x: &mut [f32]) {
    match device::active() {
        Some(device) => rows::add_to_rows(device, row, x),
        None => x.chunks_exact_mut(row.len()).for_each(|x| x.iter_mut().zip(row).for_each(|(x, b)| *x += b)),
    }
}

/// (places.len(), width): the rows of `x`: (_, width) at `places`.
pub fn gather_rows(x: &[f32], places: &[usize], width: usize) -> Buffer {
    let mut out = Buffer::unspecified(places.len() * width);
    if let Some(device) = device::active() {
        rows::gather(device, x, &numbers(places), width, &mut out);
        return out;
    }
    for_each_rows(&mut out, width, width, |first, out| {
        for (out, r) in out.chunks_exact_mut(width).zip(&places[first..]) {
            out.copy_from_slice(&x[r * width..][..width]);
        }
    });
    out
}

/// Each row of `out`: (places.len(), width) += the row of `x`: (_, width) at its place.
pub fn add_gathered_rows(x: &[f32], places: &[u32], width: usize, out: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::add_gathered(device, x, places, width, out);
    }
    for (out, place) in out.chunks_exact_mut(width).zip(places) {
        out.iter_mut().zip(&x[*place as usize * width..][..width]).for_each(|(x, p)| *x += p);
    }
}

/// `length` f32s: the rows of `parts`: (places.len(), width) at their places, no two of them the same, among rows of zeros.
pub fn spread_rows(parts: &[f32], places: &[usize], length: usize, width: usize) -> Buffer {
    let mut out = Buffer::zeros(length);
    spread_rows_over(parts, places, width, &mut out);
    out
}

/// The rows of `x`: (_, width) at `places`, no two of them the same, ← the rows of `parts`: (places.len(), width).
pub fn spread_rows_over(parts: &[f32], places: &[usize], width: usize, x: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::spread(device, parts, &numbers(places), width, x);
    }
    for (part, r) in parts.chunks_exact(width).zip(places) {
        x[r * width..][..width].copy_from_slice(part);
    }
}

/// Rows of `x`: (_, width) += the rows of `parts`: (places.len(), width), each at its place, in order.
pub fn scatter_add_rows(parts: &[f32], places: &[usize], width: usize, x: &mut [f32]) {
    if let Some(device) = device::active() {
        return rows::scatter_add(device, parts, &numbers(places), width, x);
    }
    for (part, r) in parts.chunks_exact(width).zip(places) {
        x[r * width..][..width].iter_mut().zip(part).for_each(|(x, p)| *x += p);
    }
}

fn numbers(places: &[usize]) -> Vec<u32> {
    places.iter().map(|place| u32::try_from(*place).expect("fewer than 2³² rows")).collect()
}
