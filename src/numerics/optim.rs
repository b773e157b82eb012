//! Fused optimizer updates, one fixed expression per element, and the global gradient norm (the arithmetic contract, point 7).
//!
//! Settings are binary64, as users write them; what is constant over a step is worked out there and rounded once.

use std::ops::Range;

use rayon::prelude::*;

use super::device::{self, elementwise, logits};
use super::isa::{self, Isa};
use super::reduce;
use super::simd::{F32x16, LANES, dispatch};

/// One AdamW step (PyTorch's `torch.optim.AdamW`): decoupled weight decay, `eps` outside the root.
#[derive(Debug, Clone, Copy)]
pub struct AdamwStep {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Counts from 1.
    pub step: u64,
    /// Gradients are multiplied by this first: the clipping factor, 1 for none.
    pub grad_scale: f32,
}

/// What each element of an AdamW step is computed with.
#[derive(Debug, Clone, Copy)]
pub struct AdamwCoefficients {
    pub grad_scale: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    /// √(1 − β₂ᵗ)
    pub sqrt_bias_correction2: f32,
    pub eps: f32,
    /// lr / (1 − β₁ᵗ)
    pub step_size: f32,
    /// 1 − lr · weight decay
    pub decay: f32,
}

impl AdamwCoefficients {
    /// As a device takes them.
    fn flat(&self) -> [f32; 8] {
        let Self { grad_scale, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias_correction2, eps, step_size, decay } = *self;
        [grad_scale, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias_correction2, eps, step_size, decay]
    }
}

impl AdamwStep {
    pub fn coefficients(&self) -> AdamwCoefficients {
        let (bias_correction1, bias_correction2) = (1.0 - power(self.beta1, self.step), 1.0 - power(self.beta2, self.step));
        AdamwCoefficients {
            grad_scale: self.grad_scale,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            sqrt_bias_correction2: bias_correction2.sqrt() as f32,
            eps: self.eps as f32,
            step_size: (self.lr / bias_correction1) as f32,
            decay: (1.0 - self.lr * self.weight_decay) as f32,
        }
    }
}

/// `base^exponent` by squaring: `f64::powi` leaves its order of multiplications to the platform.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

/// One RMSprop step (PyTorch's `torch.optim.RMSprop` without momentum, not centred).
#[derive(Debug, Clone, Copy)]
pub struct RmspropStep {
    pub lr: f64,
    /// The decay of the mean square, 0.99 by default in PyTorch.
    pub alpha: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub grad_scale: f32,
}

/// What each element of an RMSprop step is computed with.
#[derive(Debug, Clone, Copy)]
pub struct RmspropCoefficients {
    pub grad_scale: f32,
    pub lr: f32,
    pub alpha: f32,
    pub one_minus_alpha: f32,
    pub eps: f32,
    pub weight_decay: f32,
}

impl RmspropCoefficients {
    /// As a device takes them.
    fn flat(&self) -> [f32; 8] {
        [self.grad_scale, self.lr, self.alpha, self.one_minus_alpha, self.eps, self.weight_decay, 0.0, 0.0]
    }
}

impl RmspropStep {
    pub fn coefficients(&self) -> RmspropCoefficients {
        RmspropCoefficients {
            grad_scale: self.grad_scale,
            lr: self.lr as f32,
            alpha: self.alpha as f32,
            one_minus_alpha: (1.0 - self.alpha) as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
        }
    }
}

/// One step of gradient descent (PyTorch's `torch.optim.SGD` without momentum).
#[derive(Debug, Clone, Copy)]
pub struct SgdStep {
    pub lr: f64,
    pub weight_decay: f64,
    pub grad_scale: f32,
}

/// What each element of a step of gradient descent is computed with.
#[derive(Debug, Clone, Copy)]
pub struct SgdCoefficients {
    pub grad_scale: f32,
    pub lr: f32,
    pub weight_decay: f32,
}

impl SgdCoefficients {
    /// As a device takes them.
    fn flat(&self, momentum: f32) -> [f32; 8] {
        [self.grad_scale, self.lr, self.weight_decay, momentum, 0.0, 0.0, 0.0, 0.0]
    }
}

impl SgdStep {
    pub fn coefficients(&self) -> SgdCoefficients {
        SgdCoefficients { grad_scale: self.grad_scale, lr: self.lr as f32, weight_decay: self.weight_decay as f32 }
    }
}

/// Elements that one thread updates at a time: worth handing over, and few enough to share a tensor. Smaller tensors stay on the
/// calling thread.
const SHARE: usize = 1 << 15;

/// Updates `param` and the moments `m` and `v`; all four slices are the elements of one tensor.
pub fn adamw(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamwStep) {
    if let Some(device) = device::active() {
        return elementwise::adamw(device, param, grad, m, v, step.coefficients().flat());
    }
    adamw_with(isa::active(), param, grad, m, v, step);
}

/// [`adamw`] under a given instruction set (the result's bits are the same under each).
pub fn adamw_with(isa: Isa, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamwStep) {
    let lengths = [grad.len(), m.len(), v.len()];
    assert_eq!(lengths, [param.len(); 3], "a parameter, its gradient and its moments have one length");
    let c = step.coefficients();
    let shares =
        param.par_chunks_mut(SHARE).zip(grad.par_chunks(SHARE)).zip(m.par_chunks_mut(SHARE)).zip(v.par_chunks_mut(SHARE));
    shares.for_each(|(((param, grad), m), v)| adamw_share(isa, param, grad, m, v, &c));
}

/// Updates `param` and its mean square `v`.
pub fn rmsprop(param: &mut [f32], grad: &[f32], v: &mut [f32], step: &RmspropStep) {
    if let Some(device) = device::active() {
        return elementwise::rmsprop(device, param, grad, v, step.coefficients().flat());
    }
    rmsprop_with(isa::active(), param, grad, v, step);
}

/// [`rmsprop`] under a given instruction set (the result's bits are the same under each).
pub fn rmsprop_with(isa: Isa, param: &mut [f32], grad: &[f32], v: &mut [f32], step: &RmspropStep) {
    assert_eq!([grad.len(), v.len()], [param.len(); 2], "a parameter, its gradient and its mean square have one length");
    let c = step.coefficients();
    if param.len() <= SHARE {
        return rmsprop_share(isa, param, grad, v, &c);
    }
    let shares = param.par_chunks_mut(SHARE).zip(grad.par_chunks(SHARE)).zip(v.par_chunks_mut(SHARE));
    shares.for_each(|((param, grad), v)| rmsprop_share(isa, param, grad, v, &c));
}

/// Updates `param`.
pub fn sgd(param: &mut [f32], grad: &[f32], step: &SgdStep) {
    if let Some(device) = device::active() {
        return elementwise::sgd(device, param, grad, None, step.coefficients().flat(0.0));
    }
    sgd_with(isa::active(), param, grad, step);
}

/// [`sgd`] under a given instruction set (the result's bits are the same under each).
pub fn sgd_with(isa: Isa, param: &mut [f32], grad: &[f32], step: &SgdStep) {
    assert_eq!(grad.len(), param.len(), "a parameter and its gradient have one length");
    let c = step.coefficients();
    if param.len() <= SHARE {
        return sgd_share(isa, param, grad, &c);
    }
    param.par_chunks_mut(SHARE).zip(grad.par_chunks(SHARE)).for_each(|(param, grad)| sgd_share(isa, param, grad, &c));
}

/// Updates `param` and the running sum of gradients `buffer`, which starts at 0 (PyTorch's `torch.optim.SGD` with `momentum`, without
/// dampening): buffer ← momentum · buffer + gradient, param ← param − lr · buffer.
pub fn sgd_momentum(param: &mut [f32], grad: &[f32], buffer: &mut [f32], momentum: f64, step: &SgdStep) {
    if let Some(device) = device::active() {
        return elementwise::sgd(device, param, grad, Some(buffer), step.coefficients().flat(momentum as f32));
    }
    sgd_momentum_with(isa::active(), param, grad, buffer, momentum, step);
}

/// [`sgd_momentum`] under a given instruction set (the result's bits are the same under each).
pub fn sgd_momentum_with(isa: Isa, param: &mut [f32], grad: &[f32], buffer: &mut [f32], momentum: f64, step: &SgdStep) {
    assert_eq!([grad.len(), buffer.len()], [param.len(); 2], "a parameter, its gradient and its buffer have one length");
    let (c, momentum) = (step.coefficients(), momentum as f32);
    if param.len() <= SHARE {
        return sgd_momentum_share(isa, param, grad, buffer, momentum, &c);
    }
    let shares = param.par_chunks_mut(SHARE).zip(grad.par_chunks(SHARE)).zip(buffer.par_chunks_mut(SHARE));
    shares.for_each(|((param, grad), buffer)| sgd_momentum_share(isa, param, grad, buffer, momentum, &c));
}

/// The Euclidean norm of all gradients together: a binary64 sum per tensor in sixteen lanes, tensors in the given order (name
/// order, by the contract).
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    let gradients: Vec<&[f32]> = gradients.into_iter().collect();
    let squares: Vec<f64> = match device::active() {
        Some(device) => logits::sums_of_squares(device, &gradients),
        None => gradients.into_iter().map(reduce::sum_squares_f64).collect(),
    };
    squares.into_iter().fold(0.0, |sum, square| sum + square).sqrt()
}

dispatch! {
    fn adamw_share(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], c: &AdamwCoefficients) = adamw_kernel;
    fn rmsprop_share(param: &mut [f32], grad: &[f32], v: &mut [f32], c: &RmspropCoefficients) = rmsprop_kernel;
    fn sgd_share(param: &mut [f32], grad: &[f32], c: &SgdCoefficients) = sgd_kernel;
    fn sgd_momentum_share(
        param: &mut [f32], grad: &[f32], buffer: &mut [f32], momentum: f32, c: &SgdCoefficients
    ) = sgd_momentum_kernel;
}

/// The elements of one vector, fewer at the end of a slice.
#[inline(always)]
fn read<V: F32x16>(xs: &[f32], at: &Range<usize>) -> V {
    if at.len() == LANES { V::load(&xs[at.clone()]) } else { V::load_part(&xs[at.clone()], 0.0) }
}

#[inline(always)]
fn write<V: F32x16>(value: V, xs: &mut [f32], at: &Range<usize>) {
    if at.len() == LANES {
        value.store(&mut xs[at.clone()]);
    } else {
        value.store_part(&mut xs[at.clone()]);
    }
}

#[inline(always)]
fn adamw_kernel<V: F32x16>(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], c: &AdamwCoefficients) {
    for i in (0..param.len()).step_by(LANES) {
        let at = i..(i + LANES).min(param.len());
        let g = read::<V>(grad, &at) * V::splat(c.grad_scale);
        let mean = read::<V>(m, &at);
        let mean = V::splat(c.one_minus_beta1).fma(g - mean, mean);
        let square = (V::splat(c.one_minus_beta2) * g).fma(g, read::<V>(v, &at) * V::splat(c.beta2));
        let denominator = square.sqrt() / V::splat(c.sqrt_bias_correction2) + V::splat(c.eps);
        let decayed = read::<V>(param, &at) * V::splat(c.decay);
        write(V::splat(-c.step_size).fma(mean / denominator, decayed), param, &at);
        write(mean, m, &at);
        write(square, v, &at);
    }
}

#[inline(always)]
fn rmsprop_kernel<V: F32x16>(param: &mut [f32], grad: &[f32], v: &mut [f32], c: &RmspropCoefficients) {
    for i in (0..param.len()).step_by(LANES) {
        let at = i..(i + LANES).min(param.len());
        let p = read::<V>(param, &at);
        let g = V::splat(c.weight_decay).fma(p, read::<V>(grad, &at) * V::splat(c.grad_scale));
        let square = (V::splat(c.one_minus_alpha) * g).fma(g, read::<V>(v, &at) * V::splat(c.alpha));
        write(V::splat(-c.lr).fma(g / (square.sqrt() + V::splat(c.eps)), p), param, &at);
        write(square, v, &at);
    }
}

#[inline(always)]
fn sgd_kernel<V: F32x16>(param: &mut [f32], grad: &[f32], c: &SgdCoefficients) {
    for i in (0..param.len()).step_by(LANES) {
        let at = i..(i + LANES).min(param.len());
        let p = read::<V>(param, &at);
        let g = V::splat(c.weight_decay).fma(p, read::<V>(grad, &at) * V::splat(c.grad_scale));
        write(V::splat(-c.lr).fma(g, p), param, &at);
    }
}

#[inline(always)]
fn sgd_momentum_kernel<V: F32x16>(param: &mut [f32], grad: &[f32], buffer: &mut [f32], momentum: f32, c: &SgdCoefficients) {
    for i in (0..param.len()).step_by(LANES) {
        let at = i..(i + LANES).min(param.len());
        let p = read::<V>(param, &at);
        let g = V::splat(c.weight_decay).fma(p, read::<V>(grad, &at) * V::splat(c.grad_scale));
        let sum = V::splat(momentum).fma(read::<V>(buffer, &at), g);
        write(V::splat(-c.lr).fma(sum, p), param, &at);
        write(sum, buffer, &at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reference;
    use crate::testing::{Values, bits, length};

    const ADAMW: AdamwStep =
        AdamwStep { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 1, grad_scale: 0.5 };
    const RMSPROP: RmspropStep = RmspropStep { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.1, grad_scale: 0.5 };
    const SGD: SgdStep = SgdStep { lr: 0.1, weight_decay: 0.01, grad_scale: 0.5 };

    /// Every instruction set against the definition, element by element.
    fn check(length: usize, values: Values) {
        let [start, grad, m0] = [0, 1, 2].map(|i| values.draw(length, i));
        let v0: Vec<f32> = values.draw(length, 3).iter().map(|x| x.abs()).collect();
        let [mut expected, mut expected_rmsprop, mut expected_sgd, mut expected_momentum] = [0, 1, 2, 3].map(|_| start.clone());
        let (mut mean, mut square, mut mean_square, mut sum) = (m0.clone(), v0.clone(), v0.clone(), m0.clone());
        for i in 0..length {
            reference::adamw(&mut expected[i], grad[i], &mut mean[i], &mut square[i], &ADAMW.coefficients());
            reference::rmsprop(&mut expected_rmsprop[i], grad[i], &mut mean_square[i], &RMSPROP.coefficients());
            reference::sgd(&mut expected_sgd[i], grad[i], &SGD.coefficients());
            reference::sgd_momentum(&mut expected_momentum[i], grad[i], &mut sum[i], 0.9, &SGD.coefficients());
        }
        for isa in isa::available() {
            let (mut param, mut m, mut v) = (start.clone(), m0.clone(), v0.clone());
            adamw_with(isa, &mut param, &grad, &mut m, &mut v, &ADAMW);
            assert_eq!([&param, &m, &v].map(|x| bits(x)), [&expected, &mean, &square].map(|x| bits(x)), "{isa} adamw");
            let (mut param, mut v) = (start.clone(), v0.clone());
            rmsprop_with(isa, &mut param, &grad, &mut v, &RMSPROP);
            assert_eq!([&param, &v].map(|x| bits(x)), [&expected_rmsprop, &mean_square].map(|x| bits(x)), "{isa} rmsprop");
            let mut param = start.clone();
            sgd_with(isa, &mut param, &grad, &SGD);
            assert_eq!(bits(&param), bits(&expected_sgd), "{isa} sgd");
            let (mut param, mut buffer) = (start.clone(), m0.clone());
            sgd_momentum_with(isa, &mut param, &grad, &mut buffer, 0.9, &SGD);
            assert_eq!([&param, &buffer].map(|x| bits(x)), [&expected_momentum, &sum].map(|x| bits(x)), "{isa} momentum");
        }
        let (norm, expected) = (global_norm([&grad[..], &m0]), reference::global_norm(&[&grad, &m0]));
        assert!(norm.to_bits() == expected.to_bits() || norm.is_nan() && expected.is_nan(), "{norm} {expected}");
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_bits_of_the_definition(length in length(), values in Values::any()) {
            check(length, values);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]
        #[test]
        fn the_shares_of_threads_change_no_bit(values in Values::any(), more in 0..40usize) {
            check(2 * SHARE - 20 + more, values);
        }
    }

    /// Ten steps in binary64 by the published formulas, written with the moments divided rather than the step size scaled.
    #[test]
    fn adamw_follows_its_formula_in_binary64() {
        let (mut param, mut m, mut v) = ([0.5f32], [0.0f32], [0.0f32]);
        let (mut p, mut mean, mut square) = (0.5f64, 0.0f64, 0.0f64);
        for step in 1..=10 {
            let grad = 0.3 * step as f32 - 1.0;
            adamw(&mut param, &[grad], &mut m, &mut v, &AdamwStep { step, ..ADAMW });
            let g = f64::from(grad) * 0.5;
            p -= 1e-3 * 0.01 * p;
            mean = 0.9 * mean + 0.1 * g;
            square = 0.999 * square + 0.001 * g * g;
            let corrected = (mean / (1.0 - 0.9f64.powf(step as f64)), square / (1.0 - 0.999f64.powf(step as f64)));
            p -= 1e-3 * corrected.0 / (corrected.1.sqrt() + 1e-8);
            assert!((f64::from(param[0]) - p).abs() < 1e-6 * p.abs(), "step {step}: {} and {p}", param[0]);
        }
    }

    #[test]
    fn rmsprop_and_sgd_follow_their_formulas_in_binary64() {
        let (mut param, mut v, mut plain) = ([0.5f32], [0.0f32], [0.5f32]);
        let (mut p, mut square, mut q) = (0.5f64, 0.0f64, 0.5f64);
        for step in 1..=10 {
            let grad = 0.3 * step as f32 - 1.0;
            rmsprop(&mut param, &[grad], &mut v, &RMSPROP);
            sgd(&mut plain, &[grad], &SGD);
            let g = f64::from(grad) * 0.5 + 0.1 * p;
            square = 0.99 * square + 0.01 * g * g;
            p -= 1e-2 * g / (square.sqrt() + 1e-8);
            q -= 0.1 * (f64::from(grad) * 0.5 + 0.01 * q);
            assert!((f64::from(param[0]) - p).abs() < 1e-6, "step {step}: {} and {p}", param[0]);
            assert!((f64::from(plain[0]) - q).abs() < 1e-6, "step {step}: {} and {q}", plain[0]);
        }
    }

    #[test]
    fn the_norm_of_three_four_and_twelve_is_thirteen() {
        assert_eq!(global_norm([&[3.0f32, 4.0][..], &[12.0]]), 13.0);
        assert_eq!(global_norm(std::iter::empty()), 0.0);
    }
}
