//! Ranks, and how well two orders agree.

/// Ranks from 1 on, equal values sharing the middle of theirs.
pub fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        for place in &order[start..end] {
            ranks[*place] = (start + 1 + end) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

/// The product-moment correlation. None where a side doesn't vary.
///
/// # Panics
/// When the sides differ in length.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len());
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        aa += (a - mean_a) * (a - mean_a);
        bb += (b - mean_b) * (b - mean_b);
        ab += (a - mean_a) * (b - mean_b);
    }
    let scale = (aa * bb).sqrt();
    (scale > 0.0).then(|| (ab / scale).clamp(-1.0, 1.0))
}

/// Spearman's ρ: the correlation of the midranks.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&midranks(a), &midranks(b))
}

/// Kendall's τ-b (Kendall 1945): concordant minus discordant pairs over the geometric mean of the pairs that either side
/// tells apart. O(n²). None where a side doesn't vary.
///
/// # Panics
/// When the sides differ in length.
pub fn kendall_tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len());
    let sign = |x: f64, y: f64| i64::from(x > y) - i64::from(x < y);
    let (mut balance, mut apart_a, mut apart_b) = (0i64, 0i64, 0i64);
    for i in 0..a.len() {
        for j in 0..i {
            let (x, y) = (sign(a[i], a[j]), sign(b[i], b[j]));
            balance += x * y;
            apart_a += x * x;
            apart_b += y * y;
        }
    }
    let scale = (apart_a as f64).sqrt() * (apart_b as f64).sqrt();
    (scale > 0.0).then(|| balance as f64 / scale)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, numbers, vectors};
    use super::*;

    #[test]
    fn correlations_meet_scipy() {
        let Some(file) = vectors("agreement") else { return };
        let (a, b) = (numbers(&file["r1"]), numbers(&file["r2"]));
        let found = [kendall_tau_b(&a, &b), spearman(&a, &b), pearson(&a, &b)].map(Option::unwrap);
        close(&found, &["kendall_tau_b", "spearman", "pearson"].map(|name| file[name].as_f64().unwrap()), 1e-9);
    }

    #[test]
    fn a_side_that_does_not_vary_has_no_correlation() {
        let (flat, rising) = ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]);
        assert_eq!((pearson(&flat, &rising), spearman(&rising, &flat), kendall_tau_b(&flat, &rising)), (None, None, None));
        assert_eq!(midranks(&[2.0, 1.0, 2.0]), [2.5, 1.0, 2.5]);
    }
}
