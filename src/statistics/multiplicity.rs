//! Families of tests: p-values adjusted so that each may be held against the level of the whole family.
//!
//! The family-wise rate is kept by Bonferroni, Šidák 1967 (independent tests), Holm 1979, Hochberg 1988 and Hommel 1988 (both for
//! positively dependent tests); the false discovery rate by Benjamini & Hochberg 1995 (positively dependent) and Benjamini &
//! Yekutieli 2001 (any dependence). Hard gates use Holm, which asks nothing of the tests.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    Bonferroni,
    Sidak,
    Holm,
    HolmSidak,
    Hochberg,
    Hommel,
    BenjaminiHochberg,
    BenjaminiYekutieli,
}

/// Adjusted p-values, in the order given. A test is rejected where its adjusted p is at most the family's level.
///
/// # Panics
/// When a p-value is not between 0 and 1.
pub fn adjust(p: &[f64], method: Adjustment) -> Vec<f64> {
    assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "a p-value lies between 0 and 1");
    let m = p.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let sorted: Vec<f64> = order.iter().map(|i| p[*i]).collect();
    let tests = |rank: usize| (m - rank) as f64;
    let sidak = |p: f64, tests: f64| -libm::expm1(tests * libm::log1p(-p));
    let each = |f: &dyn Fn(usize, f64) -> f64| sorted.iter().enumerate().map(|(i, p)| f(i, *p)).collect::<Vec<f64>>();
    let adjusted = match method {
        Adjustment::Bonferroni => each(&|_, p| p * m as f64),
        Adjustment::Sidak => each(&|_, p| sidak(p, m as f64)),
        Adjustment::Holm => step_down(each(&|i, p| p * tests(i))),
        Adjustment::HolmSidak => step_down(each(&|i, p| sidak(p, tests(i)))),
        Adjustment::Hochberg => step_up(each(&|i, p| p * tests(i))),
        Adjustment::Hommel => hommel(&sorted),
        Adjustment::BenjaminiHochberg => step_up(each(&|i, p| p * m as f64 / (i + 1) as f64)),
        Adjustment::BenjaminiYekutieli => {
            let harmonic: f64 = (1..=m).map(|i| 1.0 / i as f64).sum();
            step_up(each(&|i, p| p * harmonic * m as f64 / (i + 1) as f64))
        }
    };
    let mut result = vec![0.0; m];
    for (i, value) in order.into_iter().zip(adjusted) {
        result[i] = value.min(1.0);
    }
    result
}

/// Each at least as large as those before it.
fn step_down(mut values: Vec<f64>) -> Vec<f64> {
    for i in 1..values.len() {
        values[i] = values[i].max(values[i - 1]);
    }
    values
}

/// Each at most as large as those after it.
fn step_up(mut values: Vec<f64>) -> Vec<f64> {
    for i in (1..values.len()).rev() {
        values[i - 1] = values[i - 1].min(values[i]);
    }
    values
}

/// Hommel's adjusted p-values by Wright's algorithm (Wright 1992, appendix): `p` ascending.
fn hommel(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut adjusted = p.to_vec();
    for m in (2..=n).rev() {
        let first = n - m + 1;
        let smallest = p[first..].iter().enumerate().map(|(i, p)| m as f64 * p / (i + 2) as f64).fold(f64::INFINITY, f64::min);
        for i in 0..n {
            let bound = if i >= first { smallest } else { smallest.min(m as f64 * p[i]) };
            adjusted[i] = adjusted[i].max(bound);
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, numbers, vectors};
    use super::*;

    const ALL: [(Adjustment, &str); 8] = [
        (Adjustment::Bonferroni, "bonferroni"),
        (Adjustment::Sidak, "sidak"),
        (Adjustment::Holm, "holm"),
        (Adjustment::HolmSidak, "holm-sidak"),
        (Adjustment::Hochberg, "simes-hochberg"),
        (Adjustment::Hommel, "hommel"),
        (Adjustment::BenjaminiHochberg, "fdr_bh"),
        (Adjustment::BenjaminiYekutieli, "fdr_by"),
    ];

    #[test]
    fn adjusted_p_values_and_decisions_meet_statsmodels() {
        let Some(file) = vectors("multiple_comparisons") else { return };
        let (p, alpha) = (numbers(&file["p"]), file["alpha"].as_f64().unwrap());
        for (method, name) in ALL {
            let adjusted = adjust(&p, method);
            close(&adjusted, &numbers(&file[name]["adjusted"]), 1e-9);
            let decisions: Vec<bool> = adjusted.iter().map(|p| *p <= alpha).collect();
            let expected: Vec<bool> = file[name]["reject"].as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect();
            assert_eq!(decisions, expected, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn order_does_not_matter_and_nothing_shrinks(
            p in proptest::collection::vec(0.0f64..=1.0, 1..20), turn in 0usize..20,
        ) {
            let mut turned = p.clone();
            turned.rotate_left(turn % p.len());
            for (method, name) in ALL {
                let mut adjusted = adjust(&p, method);
                proptest::prop_assert!(adjusted.iter().zip(&p).all(|(a, p)| a >= p || (a - p).abs() < 1e-12), "{}", name);
                adjusted.rotate_left(turn % p.len());
                proptest::prop_assert!(adjusted.iter().zip(adjust(&turned, method)).all(|(a, b)| (a - b).abs() < 1e-12));
            }
        }
    }
}
