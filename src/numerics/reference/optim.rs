//! Optimizer updates, one fixed expression an element. The coefficients are worked out in binary64 and rounded once.

use crate::optim::{AdamwCoefficients, RmspropCoefficients, SgdCoefficients};

/// One element of an AdamW step (Loshchilov and Hutter 2019, algorithm 2, in PyTorch's arrangement).
pub fn adamw(param: &mut f32, grad: f32, m: &mut f32, v: &mut f32, c: &AdamwCoefficients) {
    let g = grad * c.grad_scale;
    *m = c.one_minus_beta1.mul_add(g - *m, *m);
    *v = (c.one_minus_beta2 * g).mul_add(g, *v * c.beta2);
    let denominator = v.sqrt() / c.sqrt_bias_correction2 + c.eps;
    *param = (-c.step_size).mul_add(*m / denominator, *param * c.decay);
}

/// One element of an RMSprop step (PyTorch's: no momentum, not centred, weight decay added to the gradient).
pub fn rmsprop(param: &mut f32, grad: f32, v: &mut f32, c: &RmspropCoefficients) {
    let g = c.weight_decay.mul_add(*param, grad * c.grad_scale);
    *v = (c.one_minus_alpha * g).mul_add(g, *v * c.alpha);
    *param = (-c.lr).mul_add(g / (v.sqrt() + c.eps), *param);
}

/// One element of a step of gradient descent (weight decay added to the gradient).
pub fn sgd(param: &mut f32, grad: f32, c: &SgdCoefficients) {
    let g = c.weight_decay.mul_add(*param, grad * c.grad_scale);
    *param = (-c.lr).mul_add(g, *param);
}

/// One element of a step of gradient descent with momentum (PyTorch's: no dampening, not Nesterov's; `buffer` starts at 0, so that
/// the first step is one without momentum).
pub fn sgd_momentum(param: &mut f32, grad: f32, buffer: &mut f32, momentum: f32, c: &SgdCoefficients) {
    let g = c.weight_decay.mul_add(*param, grad * c.grad_scale);
    *buffer = momentum.mul_add(*buffer, g);
    *param = (-c.lr).mul_add(*buffer, *param);
}

/// The Euclidean norm of all gradients together, in binary64: Σ x² tensor by tensor in the given order (name order, by the contract).
pub fn global_norm(gradients: &[&[f32]]) -> f64 {
    gradients.iter().fold(0.0, |sum, g| sum + super::sum_squares_f64(g)).sqrt()
}
