//! Intervals of statistics that are no means, by the jackknife: the statistic without each cluster in turn (Tukey 1958; Efron and Tibshirani
//! 1993, ch. 11).

use super::interval::{Interval, t};
use super::mean::{Measured, Range};
use super::proportion::{clopper_pearson, score};

pub const SCORE: &str = "Wilson on effective n by jackknife of prompts";

/// √((C − 1) / C Σ (θ_c − mean)²). `left_out`: the statistic without each cluster in turn.
pub fn standard_error(left_out: &[f64]) -> f64 {
    let clusters = left_out.len() as f64;
    let mean = left_out.iter().sum::<f64>() / clusters;
    ((clusters - 1.0) / clusters * left_out.iter().map(|l| (l - mean) * (l - mean)).sum::<f64>()).sqrt()
}

/// A statistic with a bounded range, as a share of that range: Wilson's interval on the number of items that would give a share the same
/// standard error, with the t quantile. Of a rate it is what [`super::mean::rate`] gives; coefficients of agreement are skewed near their
/// ends as rates are. Where leaving out a cluster changes nothing, none of C clusters differed, and Clopper and Pearson's upper limit of the
/// share that do is what lies between the value and the ends. None for fewer than two clusters.
pub fn between(value: f64, left_out: &[f64], range: Range, n: usize, level: f64) -> Option<Measured> {
    let clusters = left_out.len();
    if clusters < 2 {
        return None;
    }
    let (width, error) = (range.upper - range.lower, standard_error(left_out));
    let share = (value - range.lower) / width;
    let unit = if error > 1e-9 * width {
        let error = error / width;
        score(share, share * (1.0 - share) / (error * error), t(level, clusters - 1))
    } else {
        let unseen = clopper_pearson(0, clusters as u64, level).upper;
        Interval { lower: share - unseen * share, upper: share + unseen * (1.0 - share) }
    };
    let interval = Interval { lower: range.lower + width * unit.lower, upper: range.lower + width * unit.upper };
    Some(Measured { value, interval, n, clusters, method: SCORE })
}

#[cfg(test)]
mod tests {
    use super::super::mean::{Clustered, rate};
    use super::super::reference::close;
    use super::*;

    fn without(values: &[f64]) -> Vec<f64> {
        let sum: f64 = values.iter().sum();
        values.iter().map(|v| (sum - v) / (values.len() - 1) as f64).collect()
    }

    #[test]
    fn of_a_mean_it_is_the_standard_error_and_of_a_rate_the_same_interval() {
        let values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0];
        let items = Clustered::new(values.into_iter().enumerate());
        close(&[standard_error(&without(&values))], &[items.standard_error().unwrap()], 1e-12);
        let found = between(items.mean(), &without(&values), Range::UNIT, 12, 0.95).unwrap();
        // Fewer items than there are verdicts: C − 1 of them.
        let expected = rate(&items, 0.95).unwrap().interval;
        close(&[found.interval.lower, found.interval.upper], &[expected.lower, expected.upper], 1e-12);
        let twice = Range { lower: -1.0, upper: 1.0 };
        let spread: Vec<f64> = without(&values).iter().map(|v| 2.0 * v - 1.0).collect();
        let wide = between(2.0 * items.mean() - 1.0, &spread, twice, 12, 0.95).unwrap().interval;
        close(&[wide.lower, wide.upper], &[2.0 * expected.lower - 1.0, 2.0 * expected.upper - 1.0], 1e-12);
    }

    #[test]
    fn clusters_that_all_agree_say_how_many_they_are() {
        let found = between(1.0, &[1.0; 20], Range { lower: -1.0, upper: 1.0 }, 20, 0.95).unwrap().interval;
        close(&[found.lower, found.upper], &[1.0 - 2.0 * clopper_pearson(0, 20, 0.95).upper, 1.0], 1e-12);
        assert!(between(1.0, &[1.0], Range::UNIT, 1, 0.95).is_none());
    }
}
