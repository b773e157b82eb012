//! Soft-capping of scores and logits (Gemma 2, Gemma Team 2024, arXiv 2408.00118, section 2).

use super::tanh;

/// cap · tanh(x / cap).
pub fn softcap(x: f32, cap: f32) -> f32 {
    tanh(x / cap) * cap
}

/// The derivative of [`softcap`] where its value is `y`: 1 − (y / cap)².
pub fn softcap_slope(y: f32, cap: f32) -> f32 {
    let t = y / cap;
    t.mul_add(-t, 1.0)
}
