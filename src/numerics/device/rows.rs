//! What works on rows, on a device: norms, biases, and rows moved between matrices.

use std::ptr;

use super::kernels::{
    ADD_COLUMNS, ADD_GATHERED_ROWS, ADD_TO_ROWS, FILL_ROWS, GATHER_ROWS, Kernel, LAYER_BACKWARD, LAYER_MOMENTS, LAYER_PARAMETERS,
    LAYER_SCALE, Matrix, Norm, RMS_BACKWARD, RMS_INVERSE, RMS_SCALE, RMS_WEIGHT, SCATTER_ADD, SPREAD_ROWS, Scatter, int,
};
use super::{Device, Launch};
use crate::layer_norm::Moments;

/// Rows that a block of a row reduction has.
const ROWS: usize = 16;

fn norm(x: *const f32, elements: usize, hidden: usize) -> Norm {
    let (none, nowhere) = (ptr::null(), ptr::null_mut());
    Norm {
        x,
        weight: none,
        bias: none,
        dy: none,
        spread: nowhere,
        out: nowhere,
        dweight: nowhere,
        dbias: nowhere,
        rows: int(elements / hidden),
        hidden: int(hidden),
        eps: 0.0,
    }
}

/// Means and inverse standard deviations as plain numbers.
fn flat(moments: &[Moments]) -> &[f32] {
    // SAFETY: `Moments` are two f32s in the order of C.
    unsafe { std::slice::from_raw_parts(moments.as_ptr().cast(), 2 * moments.len()) }
}

fn flat_mut(moments: &mut [Moments]) -> &mut [f32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(moments.as_mut_ptr().cast(), 2 * moments.len()) }
}

pub fn rms_inverse(device: &'static Device, x: &[f32], hidden: usize, eps: f32, inverse: &mut [f32]) {
    let (mut launch, rows) = (Launch::on(device), inverse.len());
    let of = Norm { spread: launch.output(inverse), eps, ..norm(launch.input(&x[..rows * hidden]), rows * hidden, hidden) };
    launch.start(&RMS_INVERSE, rows.div_ceil(ROWS), &of);
    launch.finish();
}

pub fn rms_scale(device: &'static Device, x: &[f32], weight: &[f32], inverse: &[f32], y: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), y.len());
    let of = norm(launch.input(x), n, weight.len());
    let of = Norm { weight: launch.input(weight), spread: launch.input(inverse).cast_mut(), out: launch.output(y), ..of };
    launch.start_elements(&RMS_SCALE, n, &of);
    launch.finish();
}

pub fn rms_backward(device: &'static Device, x: &[f32], weight: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (mut launch, n, hidden) = (Launch::on(device), dx.len(), weight.len());
    let of = norm(launch.input(x), n, hidden);
    let of = Norm { weight: launch.input(weight), dy: launch.input(dy), ..of };
    let of = Norm { spread: launch.input(inverse).cast_mut(), out: launch.output(dx), ..of };
    launch.start(&RMS_BACKWARD, (n / hidden).div_ceil(ROWS), &of);
    launch.finish();
}

pub fn rms_weight(device: &'static Device, x: &[f32], inverse: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let (mut launch, hidden) = (Launch::on(device), dweight.len());
    let of = norm(launch.input(x), dy.len(), hidden);
    let of = Norm { spread: launch.input(inverse).cast_mut(), dy: launch.input(dy), dweight: launch.output(dweight), ..of };
    launch.start_elements(&RMS_WEIGHT, hidden, &of);
    launch.finish();
}

pub fn layer_moments(device: &'static Device, x: &[f32], hidden: usize, eps: f32, moments: &mut [Moments]) {
    let (mut launch, rows) = (Launch::on(device), moments.len());
    let of = norm(launch.input(&x[..rows * hidden]), rows * hidden, hidden);
    let of = Norm { spread: launch.output(flat_mut(moments)), eps, ..of };
    launch.start(&LAYER_MOMENTS, rows.div_ceil(ROWS), &of);
    launch.finish();
}

pub fn layer_scale(device: &'static Device, x: &[f32], weight: &[f32], bias: &[f32], moments: &[Moments], y: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), y.len());
    let of = norm(launch.input(x), n, weight.len());
    let of = Norm { weight: launch.input(weight), bias: launch.input(bias), ..of };
    let of = Norm { spread: launch.input(flat(moments)).cast_mut(), out: launch.output(y), ..of };
    launch.start_elements(&LAYER_SCALE, n, &of);
    launch.finish();
}

pub fn layer_backward(device: &'static Device, x: &[f32], weight: &[f32], moments: &[Moments], dy: &[f32], dx: &mut [f32]) {
    let (mut launch, n, hidden) = (Launch::on(device), dx.len(), weight.len());
    let of = norm(launch.input(x), n, hidden);
    let of = Norm { weight: launch.input(weight), dy: launch.input(dy), ..of };
    let of = Norm { spread: launch.input(flat(moments)).cast_mut(), out: launch.output(dx), ..of };
    launch.start(&LAYER_BACKWARD, (n / hidden).div_ceil(ROWS), &of);
    launch.finish();
}

pub fn layer_parameters(
    device: &'static Device,
    x: &[f32],
    moments: &[Moments],
    dy: &[f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let (mut launch, hidden) = (Launch::on(device), dweight.len());
    let of = norm(launch.input(x), dy.len(), hidden);
    let of = Norm { spread: launch.input(flat(moments)).cast_mut(), dy: launch.input(dy), ..of };
    let of = Norm { dweight: launch.output(dweight), dbias: launch.output(dbias), ..of };
    launch.start_elements(&LAYER_PARAMETERS, hidden, &of);
    launch.finish();
}

/// One thread an element of `to`, or of `from` where rows of that are spread.
fn moved(
    device: &'static Device,
    kernel: &Kernel<Matrix>,
    from: &[f32],
    to: &mut [f32],
    places: &[u32],
    width: usize,
    elements: usize,
) {
    let mut launch = Launch::on(device);
    let places = launch.list(places);
    let of = Matrix { from: launch.input(from), to: launch.output(to), places, rows: int(elements / width), width: int(width) };
    launch.start_elements(kernel, elements, &of);
    launch.finish();
}

/// Every row of `x` ← `row`.
pub fn fill_rows(device: &'static Device, row: &[f32], x: &mut [f32]) {
    let n = x.len();
    moved(device, &FILL_ROWS, row, x, &[], row.len(), n);
}

/// Every row of `x` += `row`.
pub fn add_to_rows(device: &'static Device, row: &[f32], x: &mut [f32]) {
    let n = x.len();
    moved(device, &ADD_TO_ROWS, row, x, &[], row.len(), n);
}

pub fn gather(device: &'static Device, x: &[f32], places: &[u32], width: usize, out: &mut [f32]) {
    let n = out.len();
    moved(device, &GATHER_ROWS, x, out, places, width, n);
}

pub fn add_gathered(device: &'static Device, x: &[f32], places: &[u32], width: usize, out: &mut [f32]) {
    let n = out.len();
    moved(device, &ADD_GATHERED_ROWS, x, out, places, width, n);
}

pub fn spread(device: &'static Device, x: &[f32], places: &[u32], width: usize, out: &mut [f32]) {
    moved(device, &SPREAD_ROWS, x, out, places, width, x.len());
}

/// `sums`: (width,) += the rows of `x`, one after the other.
pub fn add_columns(device: &'static Device, x: &[f32], sums: &mut [f32]) {
    let (mut launch, width) = (Launch::on(device), sums.len());
    let of = Matrix {
        from: launch.input(x),
        to: launch.output(sums),
        places: ptr::null(),
        rows: int(x.len() / width),
        width: int(width),
    };
    launch.start_elements(&ADD_COLUMNS, width, &of);
    launch.finish();
}

/// Rows of `to` += the rows of `from`, each at its place, in order.
pub fn scatter_add(device: &'static Device, from: &[f32], places: &[u32], width: usize, to: &mut [f32]) {
    // Rows by their place, those of one place in order.
    let mut sources: Vec<u32> = (0..places.len() as u32).collect();
    sources.sort_by_key(|source| places[*source as usize]);
    let (mut targets, mut starts) = (Vec::new(), Vec::new());
    for (at, source) in sources.iter().enumerate() {
        let place = places[*source as usize];
        if targets.last() != Some(&place) {
            targets.push(place);
            starts.push(at as u32);
        }
    }
    starts.push(sources.len() as u32);
    let mut launch = Launch::on(device);
    let [of_targets, starts, sources] = [&targets, &starts, &sources].map(|list| launch.list(list));
    let (from, to) = (launch.input(from), launch.output(to));
    let of = Scatter { from, to, targets: of_targets, starts, sources, count: int(targets.len()), width: int(width) };
    launch.start_elements(&SCATTER_ADD, targets.len() * width, &of);
    launch.finish();
}
