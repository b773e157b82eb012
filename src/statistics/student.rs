//! Student's tests of a mean with a standard error: against a value, for equivalence, for non-inferiority.

use super::interval::t_cdf;

/// An estimate with its standard error and degrees of freedom (clusters − 1, where it is clustered).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Located {
    pub value: f64,
    pub standard_error: f64,
    pub df: f64,
}

/// A t statistic and its p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    pub t: f64,
    pub p: f64,
}

impl Located {
    fn t(self, bound: f64) -> f64 {
        (self.value - bound) / self.standard_error
    }

    /// Two-sided: is the truth `value`?
    pub fn differs_from(self, value: f64) -> Test {
        let t = self.t(value);
        Test { t, p: 2.0 * t_cdf(-t.abs(), self.df) }
    }

    /// One-sided: is the truth at most `bound`? A small p says that it lies above.
    pub fn above(self, bound: f64) -> Test {
        let t = self.t(bound);
        Test { t, p: t_cdf(-t, self.df) }
    }

    /// One-sided: is the truth at least `bound`? A small p says that it lies below.
    pub fn below(self, bound: f64) -> Test {
        let t = self.t(bound);
        Test { t, p: t_cdf(t, self.df) }
    }

    /// New minus old is not worse than −`margin`: a small p confirms it.
    pub fn non_inferior(self, margin: f64) -> Test {
        self.above(-margin)
    }

    /// Two one-sided tests (Schuirmann 1987): a small p says that the truth lies within the bounds.
    pub fn equivalent(self, lower: f64, upper: f64) -> f64 {
        self.above(lower).p.max(self.below(upper).p)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mean::Clustered;
    use super::super::reference::{close, differences, numbers, vectors};
    use super::*;

    #[test]
    fn paired_tests_meet_scipy_and_statsmodels() {
        let Some(file) = vectors("paired_tests") else { return };
        let items = Clustered::new(differences(&file).into_iter().enumerate());
        let located = Located { value: items.mean(), standard_error: items.standard_error().unwrap(), df: 11.0 };
        let f = |name: &str| file[name].as_f64().unwrap();
        let found = located.differs_from(0.0);
        close(&[found.t, found.p], &[f("ttest_rel_t"), f("ttest_rel_p")], 1e-9);
        close(&[found.t / 12f64.sqrt()], &[f("cohen_dz")], 1e-9);

        let tost = &file["tost_paired_bounds_-0.05_0.10"];
        close(&[located.equivalent(-0.05, 0.10)], &[tost["p"].as_f64().unwrap()], 1e-9);
        let (lower, upper) = (located.above(-0.05), located.below(0.10));
        close(&[lower.t, lower.p, located.df], &numbers(&tost["lower_t_p_df"]), 1e-9);
        close(&[upper.t, upper.p, located.df], &numbers(&tost["upper_t_p_df"]), 1e-9);

        let expected = &file["noninferiority_margin_0.02"];
        let found = located.non_inferior(0.02);
        close(&[found.t, found.p], &[expected["t"].as_f64().unwrap(), expected["p"].as_f64().unwrap()], 1e-9);
    }
}
