//! f-divergences other than the reverse KL (Wang et al. 2023, arXiv 2309.16240, "Beyond Reverse KL").

use super::{logistic, softplus};
use crate::suite::settings::{FDivergence, ObjectiveSettings};

/// The score of a completion is f′(u) at u = π/π_ref = eʳ (their theorem 1), shifted to be 0 at u = 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Divergence {
    /// f′(u) = log u.
    ReverseKl,
    /// f′(u) = 1 − 1/u.
    ForwardKl,
    /// f′(u) = log(2u / (1 + u)).
    JensenShannon,
    /// f′(u) = (u^(α − 1) − 1) / (α − 1): α → 1 is the reverse KL, α = 0 the forward KL.
    Alpha(f64),
}

/// TRL keeps exponents in this range, so that their exponentials stay finite in binary32.
const LARGEST_EXPONENT: f64 = 80.0;

impl Divergence {
    pub fn of(o: &ObjectiveSettings) -> Self {
        match o.f_divergence_type {
            FDivergence::ReverseKl => Self::ReverseKl,
            FDivergence::ForwardKl => Self::ForwardKl,
            FDivergence::JsDivergence => Self::JensenShannon,
            FDivergence::AlphaDivergence if (o.f_alpha_divergence_coef - 1.0).abs() < 1e-6 => Self::ReverseKl,
            FDivergence::AlphaDivergence => Self::Alpha(o.f_alpha_divergence_coef),
        }
    }

    /// The score of a log-ratio, and its derivative.
    pub fn score(self, ratio: f64) -> (f64, f64) {
        match self {
            Self::ReverseKl => (ratio, 1.0),
            Self::ForwardKl => (1.0 - libm::exp(-ratio), libm::exp(-ratio)),
            Self::JensenShannon => (std::f64::consts::LN_2 - softplus(-ratio), logistic(-ratio)),
            Self::Alpha(alpha) => {
                let exponent = (alpha - 1.0) * ratio;
                let beyond = exponent > LARGEST_EXPONENT;
                let power = libm::exp(if beyond { LARGEST_EXPONENT } else { exponent });
                ((power - 1.0) / (alpha - 1.0), if beyond { 0.0 } else { power })
            }
        }
    }
}
