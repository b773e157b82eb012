//! A linear axis with ticks at 1, 2 or 5 times a power of ten.

use super::super::format;

#[derive(Clone)]
pub(crate) struct Axis {
    pub label: String,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    digits: usize,
}

impl Axis {
    /// The shortest span of whole tick steps that holds all finite values, with about `goal` ticks.
    pub fn fit(label: &str, values: impl IntoIterator<Item = f64>, goal: usize) -> Self {
        let finite = values.into_iter().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = match (low <= high, high - low) {
            (false, _) => (0.0, 1.0),
            (true, span) if span > 0.0 => (low, high),
            (true, _) => (low - 0.5 * low.abs().max(1e-3), high + 0.5 * high.abs().max(1e-3)),
        };
        let (step, digits) = nice_step((high - low) / goal.max(1) as f64);
        // A hair's breadth of slack, so that 0.3 / 0.1 counts as 3.
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil();
        let ticks = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { label: label.to_owned(), low: first * step, high: last * step, ticks, digits }
    }

    /// Where a value lies between two pixels.
    pub fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }

    pub fn tick_label(&self, tick: f64) -> String {
        format::fixed(tick, self.digits)
    }
}

/// The smallest of 1, 2, 5 × 10^k that is at least `rough`, and the decimals that its multiples need.
fn nice_step(rough: f64) -> (f64, usize) {
    let exponent = libm::floor(libm::log10(rough)) as i32;
    let power = libm::pow(10.0, f64::from(exponent));
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * (1.0 - 1e-9));
    let (factor, exponent) = factor.map_or((1.0, exponent + 1), |f| (f, exponent));
    (factor * libm::pow(10.0, f64::from(exponent)), usize::try_from(-exponent).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64]) -> Vec<String> {
        let axis = Axis::fit("", values.iter().copied(), 5);
        axis.ticks.iter().map(|&t| axis.tick_label(t)).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        assert_eq!(labels(&[0.0, 1.0]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&[3.0, 61.0]), ["0", "20", "40", "60", "80"]);
        assert_eq!(labels(&[-0.03, 0.011]), ["−0.03", "−0.02", "−0.01", "0.00", "0.01", "0.02"]);
        assert_eq!(labels(&[0.1, 0.3]), ["0.10", "0.15", "0.20", "0.25", "0.30"]);
    }

    #[test]
    fn one_value_none_and_not_finite_ones_still_give_an_axis() {
        for values in [&[][..], &[2.0], &[0.0], &[-7.0, -7.0], &[f64::NAN, f64::INFINITY], &[1e-9, 2e-9], &[1e12, 3e12]] {
            let axis = Axis::fit("", values.iter().copied(), 5);
            assert!(axis.low < axis.high && (2..=12).contains(&axis.ticks.len()), "{values:?} {:?}", axis.ticks);
            for v in values.iter().filter(|v| v.is_finite()) {
                assert!(axis.low <= *v && *v <= axis.high, "{v} in {}..{}", axis.low, axis.high);
            }
        }
    }
}
