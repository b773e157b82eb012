//! Quantiles of a sample.

/// The quantile at `p` of ascending values, linear between the order statistics (type 7 of Hyndman & Fan 1996, NumPy's rule).
///
/// # Panics
/// When there are no values.
pub fn sorted_quantile(ascending: &[f64], p: f64) -> f64 {
    let place = p.clamp(0.0, 1.0) * (ascending.len() - 1) as f64;
    let (below, share) = (place.floor(), place - place.floor());
    let lower = ascending[below as usize];
    let upper = ascending[(below as usize + 1).min(ascending.len() - 1)];
    lower + share * (upper - lower)
}

/// The same of values in any order, at each of `ps`.
pub fn quantiles(values: &[f64], ps: &[f64]) -> Vec<f64> {
    let mut ascending = values.to_vec();
    ascending.sort_by(f64::total_cmp);
    ps.iter().map(|p| sorted_quantile(&ascending, *p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_between_order_statistics_are_linear() {
        // numpy.quantile([3, 1, 2, 10], [0, .25, .5, .9, 1]).
        let found = quantiles(&[3.0, 1.0, 2.0, 10.0], &[0.0, 0.25, 0.5, 0.9, 1.0]);
        super::super::reference::close(&found, &[1.0, 1.75, 2.5, 7.9, 10.0], 1e-12);
        assert_eq!(quantiles(&[4.0], &[0.3]), [4.0]);
    }
}
