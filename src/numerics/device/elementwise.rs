//! What works on each element by itself, on a device.

use std::ptr;

use super::kernels::{
    ADAMW, ADD, ADD_VALUE, Activation, COPY, DROPOUT, Dropout, FILL, GATED_BACKWARD, GATED_FORWARD, GELU_BACKWARD, GELU_FORWARD,
    Kernel, RMSPROP, SCALE, SGD, SOFTCAP_BACKWARD, SOFTCAP_FORWARD, Scalar, TURN, Turn, Update, int,
};
use super::{Device, Launch};
use crate::gelu::Gelu;
use crate::mlp::Gated;

pub fn gated_forward(device: &'static Device, form: Gated, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), out.len());
    let (gate, up) = (launch.input(&gate[..n]).cast_mut(), launch.input(&up[..n]).cast_mut());
    let of = Activation { gate, up, out: launch.output(out), n: n as u64, form: form as i32, again: 0 };
    launch.start_elements(&GATED_FORWARD, n, &of);
    launch.finish();
}

pub fn gated_backward(device: &'static Device, form: Gated, gate: &mut [f32], up: &mut [f32], dout: &mut [f32], again: bool) {
    let (mut launch, n) = (Launch::on(device), dout.len());
    let (gate, up) = (launch.output(&mut gate[..n]), launch.output(&mut up[..n]));
    let of = Activation { gate, up, out: launch.output(dout), n: n as u64, form: form as i32, again: again.into() };
    launch.start_elements(&GATED_BACKWARD, n, &of);
    launch.finish();
}

pub fn gelu_forward(device: &'static Device, form: Gelu, x: &[f32], out: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), out.len());
    let gate = launch.input(&x[..n]).cast_mut();
    let of = Activation { gate, up: ptr::null_mut(), out: launch.output(out), n: n as u64, form: form as i32, again: 0 };
    launch.start_elements(&GELU_FORWARD, n, &of);
    launch.finish();
}

pub fn gelu_backward(device: &'static Device, form: Gelu, x: &mut [f32], dout: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), dout.len());
    let gate = launch.output(&mut x[..n]);
    let of = Activation { gate, up: ptr::null_mut(), out: launch.output(dout), n: n as u64, form: form as i32, again: 0 };
    launch.start_elements(&GELU_BACKWARD, n, &of);
    launch.finish();
}

fn scalar(device: &'static Device, kernel: &Kernel<Scalar>, from: &[f32], to: &mut [f32], value: f32) {
    let (mut launch, n) = (Launch::on(device), to.len());
    let of = Scalar { from: launch.input(from), to: launch.output(to), n: n as u64, value };
    launch.start_elements(kernel, n, &of);
    launch.finish();
}

pub fn softcap_forward(device: &'static Device, cap: f32, x: &mut [f32]) {
    scalar(device, &SOFTCAP_FORWARD, &[], x, cap);
}

pub fn softcap_backward(device: &'static Device, cap: f32, y: &[f32], dy: &mut [f32]) {
    scalar(device, &SOFTCAP_BACKWARD, &y[..dy.len()], dy, cap);
}

pub fn scale(device: &'static Device, x: &mut [f32], by: f32) {
    scalar(device, &SCALE, &[], x, by);
}

pub fn add(device: &'static Device, x: &mut [f32], y: &[f32]) {
    scalar(device, &ADD, &y[..x.len()], x, 0.0);
}

pub fn add_value(device: &'static Device, x: &mut [f32], value: f32) {
    scalar(device, &ADD_VALUE, &[], x, value);
}

pub fn copy(device: &'static Device, from: &[f32], to: &mut [f32]) {
    scalar(device, &COPY, &from[..to.len()], to, 0.0);
}

pub fn fill(device: &'static Device, x: &mut [f32], value: f32) {
    scalar(device, &FILL, &[], x, value);
}

/// The turn of the heads of `x`: (rows, width) by tables of `half` angles a position.
pub fn turn(
    device: &'static Device,
    tables: [&[f32]; 2],
    [head_dim, half]: [usize; 2],
    x: &mut [f32],
    width: usize,
    positions: &[u32],
    direction: f32,
) {
    let (mut launch, rows) = (Launch::on(device), x.len() / width);
    let (positions, [cosines, sines]) = (launch.list(&positions[..rows]), tables.map(|table| launch.input(table)));
    let [rows, width, head_dim, half] = [rows, width, head_dim, half].map(int);
    let of = Turn { x: launch.output(x), positions, cosines, sines, rows, width, head_dim, half, direction };
    launch.start_elements(&TURN, (rows * (width / head_dim * half)) as usize, &of);
    launch.finish();
}

/// `out` ← `x` without what falls away, times `keep`; `states`: one a row.
pub fn dropout(device: &'static Device, x: &[f32], width: usize, states: &[u64], threshold: u64, keep: f32, out: &mut [f32]) {
    let (mut launch, n) = (Launch::on(device), out.len());
    let states = launch.list(states);
    let of = Dropout { from: launch.input(x), to: launch.output(out), states, n: n as u64, threshold, width: int(width), keep };
    launch.start_elements(&DROPOUT, n, &of);
    launch.finish();
}

fn update(
    device: &'static Device,
    kernel: &Kernel<Update>,
    parameter: &mut [f32],
    gradient: &[f32],
    moments: [Option<&mut [f32]>; 2],
    c: [f32; 8],
) {
    let (mut launch, n) = (Launch::on(device), parameter.len());
    let [first, second] = moments.map(|moment| moment.map_or(ptr::null_mut(), |moment| launch.output(moment)));
    let of = Update { parameter: launch.output(parameter), gradient: launch.input(gradient), first, second, n: n as u64, c };
    launch.start_elements(kernel, n, &of);
    launch.finish();
}

pub fn adamw(device: &'static Device, parameter: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], c: [f32; 8]) {
    update(device, &ADAMW, parameter, gradient, [Some(m), Some(v)], c);
}

pub fn rmsprop(device: &'static Device, parameter: &mut [f32], gradient: &[f32], v: &mut [f32], c: [f32; 8]) {
    update(device, &RMSPROP, parameter, gradient, [Some(v), None], c);
}

pub fn sgd(device: &'static Device, parameter: &mut [f32], gradient: &[f32], buffer: Option<&mut [f32]>, c: [f32; 8]) {
    update(device, &SGD, parameter, gradient, [buffer, None], c);
}

/// The functions of `elementary` in their order there, each element of `x`; only tests launch them by themselves.
#[cfg(test)]
pub fn elementary(device: &'static Device, function: i32, x: &mut [f32]) {
    let (mut launch, n, nowhere) = (Launch::on(device), x.len(), ptr::null_mut());
    let of = Activation { gate: nowhere, up: nowhere, out: launch.output(x), n: n as u64, form: function, again: 0 };
    launch.start_elements(&super::kernels::ELEMENTARY, n, &of);
    launch.finish();
}
