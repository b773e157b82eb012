//! Rows of logits, and sums of squares in binary64, on a device.

use std::ptr;

use super::kernels::{Logits, ROW_KL, SUM_SQUARES, Squares, TOKEN_BACKWARD, TOKEN_SCORES, int};
use super::{Device, Launch};
use crate::logprob::TokenScore;

fn logits(x: *mut f32, rows: usize, width: usize) -> Logits {
    let (other, out, rows, width) = (ptr::null(), ptr::null_mut(), int(rows), int(width));
    Logits { x, other, tokens: ptr::null(), dlogp: other, out, rows, width }
}

pub fn scores(device: &'static Device, x: &[f32], width: usize, tokens: &[u32], scores: &mut [TokenScore]) {
    let mut found = vec![0.0; 4 * tokens.len()];
    let mut launch = Launch::on(device);
    let of = logits(launch.input(x).cast_mut(), tokens.len(), width);
    let of = Logits { tokens: launch.list(tokens), out: launch.output(&mut found), ..of };
    launch.start(&TOKEN_SCORES, tokens.len(), &of);
    launch.finish();
    for (score, found) in scores.iter_mut().zip(found.chunks_exact(4)) {
        *score = TokenScore { logp: found[0], entropy: found[1], mean_logit: found[2], log_sum_squares: found[3] };
    }
}

pub fn backward(device: &'static Device, x: &mut [f32], width: usize, tokens: &[u32], dlogps: &[f32]) {
    let mut launch = Launch::on(device);
    let of = logits(launch.output(x), tokens.len(), width);
    let of = Logits { tokens: launch.list(tokens), dlogp: launch.list(dlogps), ..of };
    launch.start(&TOKEN_BACKWARD, tokens.len(), &of);
    launch.finish();
}

pub fn kls(device: &'static Device, policy: &[f32], reference: &[f32], width: usize, kls: &mut [f32]) {
    let (mut launch, rows) = (Launch::on(device), kls.len());
    let of = logits(launch.input(policy).cast_mut(), rows, width);
    let of = Logits { other: launch.input(reference), out: launch.output(kls), ..of };
    launch.start(&ROW_KL, rows, &of);
    launch.finish();
}

/// Σ x² of each tensor in binary64.
pub fn sums_of_squares(device: &'static Device, tensors: &[&[f32]]) -> Vec<f64> {
    let mut launch = Launch::on(device);
    let addresses: Vec<*const f32> = tensors.iter().map(|tensor| launch.input(tensor)).collect();
    let lengths: Vec<u64> = tensors.iter().map(|tensor| tensor.len() as u64).collect();
    let sums = launch.scratch(2 * tensors.len()).cast::<f64>();
    let of = Squares { tensors: launch.list(&addresses), lengths: launch.list(&lengths), sums };
    launch.start(&SUM_SQUARES, tensors.len(), &of);
    launch.wait();
    // SAFETY: the kernel has written one number for each tensor, to memory that this launch still holds.
    (0..tensors.len()).map(|i| unsafe { sums.add(i).read() }).collect()
}
