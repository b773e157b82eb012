//! Gradients of a batch loss with respect to what the policy says of an example.

use std::ops::{Add, Mul};

/// Can be summed over the terms of a loss, and scaled.
pub trait Gradient: Copy + Default + Add<Output = Self> + Mul<f64, Output = Self> {}

impl<T: Copy + Default + Add<Output = T> + Mul<f64, Output = T>> Gradient for T {}

/// d(batch loss) with respect to the fields of `SequenceLogps` of one completion.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SequenceGradient {
    pub policy: f64,
    pub plain: f64,
    pub unlikelihood: f64,
}

impl SequenceGradient {
    /// Through `policy` alone.
    pub fn policy(policy: f64) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Through `plain` alone.
    pub fn plain(plain: f64) -> Self {
        Self { plain, ..Self::default() }
    }
}

impl Add for SequenceGradient {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            policy: self.policy + other.policy,
            plain: self.plain + other.plain,
            unlikelihood: self.unlikelihood + other.unlikelihood,
        }
    }
}

impl Mul<f64> for SequenceGradient {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self { policy: self.policy * factor, plain: self.plain * factor, unlikelihood: self.unlikelihood * factor }
    }
}

/// d(batch loss) with respect to the fields of `PairLogps` of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairGradient {
    pub chosen: SequenceGradient,
    pub rejected: SequenceGradient,
    /// With respect to the prompt's own log-probability.
    pub prompt: f64,
}

impl Add for PairGradient {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { chosen: self.chosen + other.chosen, rejected: self.rejected + other.rejected, prompt: self.prompt + other.prompt }
    }
}

impl Mul<f64> for PairGradient {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self { chosen: self.chosen * factor, rejected: self.rejected * factor, prompt: self.prompt * factor }
    }
}
