//! The elementwise middle of an MLP: SwiGLU, GELU in its two forms, and GeGLU.

use super::{erf, exp, sigmoid};

/// SwiGLU (Shazeer 2020): silu(gate) · up, silu(g) = g · σ(g).
pub fn swiglu(gate: f32, up: f32) -> f32 {
    (gate * sigmoid(gate)) * up
}

/// (dL/dgate, dL/dup) of [`swiglu`]: d silu(g)/dg = σ(g) + g σ(g) (1 − σ(g)).
pub fn swiglu_backward(gate: f32, up: f32, dout: f32) -> (f32, f32) {
    let s = sigmoid(gate);
    let silu = gate * s;
    ((dout * up) * s.mul_add(-silu, silu + s), dout * silu)
}

/// 1 / √(2π)
pub const DENSITY: f32 = 0.398_942_3;

/// The standard normal distribution function, Φ(x) = (1 + erf(x / √2)) / 2.
fn normal_cdf(x: f32) -> f32 {
    erf(x * std::f32::consts::FRAC_1_SQRT_2).mul_add(0.5, 0.5)
}

/// GELU (Hendrycks and Gimpel 2016), exact: x Φ(x). Hugging Face's `gelu`.
pub fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

/// dL/dx of [`gelu`]: dout · (Φ(x) + x φ(x)), φ(x) = e^(−x²/2) / √(2π).
pub fn gelu_backward(x: f32, dout: f32) -> f32 {
    let density = exp((x * x) * -0.5) * DENSITY;
    dout * x.mul_add(density, normal_cdf(x))
}

/// 2 √(2/π), and 0.044715 times that.
pub const GELU_TANH: [f32; 2] = [1.595_769, 0.071_354_814];

/// 2z = 2 √(2/π) (x + 0.044715 x³): with it (1 + tanh z) / 2 = σ(2z), which keeps its digits where tanh nears −1.
fn gelu_tanh_weight(x: f32) -> f32 {
    sigmoid(x * (x * x).mul_add(GELU_TANH[1], GELU_TANH[0]))
}

/// GELU's approximation x (1 + tanh z) / 2, z = √(2/π) (x + 0.044715 x³). Hugging Face's `gelu_new` and `gelu_pytorch_tanh`.
pub fn gelu_tanh(x: f32) -> f32 {
    x * gelu_tanh_weight(x)
}

/// dL/dx of [`gelu_tanh`]: dout · (σ + x σ (1 − σ) · d2z/dx), σ = σ(2z).
pub fn gelu_tanh_backward(x: f32, dout: f32) -> f32 {
    let s = gelu_tanh_weight(x);
    let slope = (x * x).mul_add(3.0 * GELU_TANH[1], GELU_TANH[0]);
    dout * ((x * s) * (1.0 - s)).mul_add(slope, s)
}

/// GeGLU (Shazeer 2020) with the approximated GELU, as in Gemma: gelu(gate) · up.
pub fn geglu(gate: f32, up: f32) -> f32 {
    gelu_tanh(gate) * up
}

/// (dL/dgate, dL/dup) of [`geglu`].
pub fn geglu_backward(gate: f32, up: f32, dout: f32) -> (f32, f32) {
    (gelu_tanh_backward(gate, dout * up), dout * gelu_tanh(gate))
}
