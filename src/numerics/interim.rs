//! Plain stand-ins for the row reductions and elementary functions of NUMERICS 3 and 4.

pub(crate) fn exp(xs: &mut [f32]) {
    xs.iter_mut().for_each(|x| *x = libm::expf(*x));
}

pub(crate) fn sigmoid(xs: &mut [f32]) {
    xs.iter_mut().for_each(|x| *x = 1.0 / (1.0 + libm::expf(-*x)));
}

pub(crate) fn log(x: f32) -> f32 {
    libm::logf(x)
}

fn lanes(n: usize, mut step: impl FnMut(usize, &mut f32)) -> f32 {
    let mut lanes = [0.0f32; 16];
    (0..n).for_each(|i| step(i, &mut lanes[i % 16]));
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|l| lanes[l] += lanes[l + half]);
    }
    lanes[0]
}

pub(crate) fn sum(xs: &[f32]) -> f32 {
    lanes(xs.len(), |i, lane| *lane += xs[i])
}

pub(crate) fn dot(xs: &[f32], ys: &[f32]) -> f32 {
    lanes(xs.len(), |i, lane| *lane = xs[i].mul_add(ys[i], *lane))
}

pub(crate) fn sum_squares(xs: &[f32]) -> f32 {
    dot(xs, xs)
}

pub(crate) fn max(xs: &[f32]) -> f32 {
    xs.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
