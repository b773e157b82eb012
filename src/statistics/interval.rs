//! Limits of an interval, and the quantiles that intervals are made of.

use statrs::distribution::{Beta, ContinuousCDF, StudentsT};
use statrs::function::beta::beta_reg;
use statrs::function::gamma::gamma_lr;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub lower: f64,
    pub upper: f64,
}

impl Interval {
    pub fn around(value: f64, half_width: f64) -> Self {
        Self { lower: value - half_width, upper: value + half_width }
    }

    /// Cut to the range of what is estimated.
    pub fn within(self, lower: f64, upper: f64) -> Self {
        Self { lower: self.lower.max(lower), upper: self.upper.min(upper) }
    }

    pub fn width(self) -> f64 {
        self.upper - self.lower
    }
}

/// z with P(|Z| ≤ z) = `level`.
pub fn z(level: f64) -> f64 {
    normal_quantile(0.5 + level / 2.0)
}

/// t with P(|T| ≤ t) = `level`, for `df` degrees of freedom.
///
/// # Panics
/// When `df` is 0: one observation has no spread.
pub fn t(level: f64, df: usize) -> f64 {
    t_real(level, df as f64)
}

/// The same for degrees of freedom that are an approximation, and no whole number.
pub fn t_real(level: f64, df: f64) -> f64 {
    assert!(df > 0.0, "a t quantile needs a positive number of degrees of freedom");
    let distribution = StudentsT::new(0.0, 1.0, df).expect("positive degrees of freedom");
    let p = 0.5 + level / 2.0;
    let mut upper = 1.0;
    while distribution.cdf(upper) < p && upper < 1e12 {
        upper *= 2.0;
    }
    bisect(0.0, upper, |x| distribution.cdf(x) - p)
}

/// P(Z ≤ x), exact in the lower tail; P(Z > x) is that of −x.
pub fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// P(T ≤ x) for `df` degrees of freedom, exact in the lower tail.
pub fn t_cdf(x: f64, df: f64) -> f64 {
    if x.is_infinite() {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let tail = 0.5 * beta_reg(df / 2.0, 0.5, df / (df + x * x));
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// P(X ≤ k) for X ~ Binomial(n, p).
pub fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n { 1.0 } else { beta_reg((n - k) as f64, k as f64 + 1.0, 1.0 - p) }
}

/// x with P(Z ≤ x) = `p`.
pub fn normal_quantile(p: f64) -> f64 {
    bisect(-40.0, 40.0, |x| normal_cdf(x) - p)
}

/// The quantile of Beta(a, b).
pub fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let distribution = Beta::new(a, b).expect("positive shapes");
    bisect(0.0, 1.0, |x| distribution.cdf(x) - p)
}

/// The quantile of χ² with `df` degrees of freedom, that may be no whole number.
pub fn chi_squared_quantile(p: f64, df: f64) -> f64 {
    let mut upper = df.max(1.0);
    while gamma_lr(df / 2.0, upper / 2.0) < p && upper < 1e12 {
        upper *= 2.0;
    }
    bisect(0.0, upper, |x| gamma_lr(df / 2.0, x / 2.0) - p)
}

/// The zero of an increasing function, to the last bit that halving can give: the inverse functions at hand stop at 1e-8 or
/// so, which the reference vectors don't forgive.
pub(crate) fn bisect(mut lower: f64, mut upper: f64, f: impl Fn(f64) -> f64) -> f64 {
    // Enough for quantiles as small as 1e-60.
    for _ in 0..200 {
        let middle = lower + (upper - lower) / 2.0;
        if middle <= lower || middle >= upper {
            break;
        }
        if f(middle) < 0.0 { lower = middle } else { upper = middle }
    }
    lower + (upper - lower) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_printed_tables() {
        // R 4: qnorm(.975), qt(.975, 5), qt(.995, 1).
        assert!((z(0.95) - 1.959_963_984_540_054).abs() < 1e-12);
        assert!((t(0.95, 5) - 2.570_581_835_636_314).abs() < 1e-11);
        assert!((t(0.99, 1) - 63.656_741_162_871_55).abs() < 1e-8);
    }

    #[test]
    fn quantiles_of_chi_square_are_those_of_scipy() {
        // scipy.stats.chi2.ppf, SciPy 1.17.1.
        let known = [
            (0.975, 5.0, 12.832_501_994_030_027),
            (0.025, 1.0, 0.000_982_069_117_175_255_6),
            (0.5, 7.3, 6.645_251_643_816_642),
            (0.975, 799.0, 879.226_311_303_318_5),
        ];
        for (p, df, expected) in known {
            assert!((chi_squared_quantile(p, df) / expected - 1.0).abs() < 1e-9, "{p} {df}");
        }
    }

    #[test]
    fn the_t_quantile_approaches_the_normal_one() {
        assert!((t(0.95, 2_000_000) - z(0.95)).abs() < 1e-5);
    }

    #[test]
    fn beta_with_two_equal_shapes_of_one_is_uniform() {
        assert!((beta_quantile(0.3, 1.0, 1.0) - 0.3).abs() < 1e-14);
    }
}
