use super::*;

/// Runs of a method whose rewards lie on R = d (α − β log d), a run's own luck and noise of prompts aside.
fn method(alpha: f64, beta: f64, luck: f64, draw: u64) -> Method {
    let truth = Fit { form: Form::Learning, alpha, beta, squares: 0.0 };
    let run = |run: u64| {
        let mut stream = Stream::of(draw, "test/frontier", run);
        let shift = luck * stream.normal();
        let checkpoint = |k: u64| {
            let d = 0.4 * (k as f64) * (1.0 + 0.1 * run as f64);
            let kl = (0..60).map(|_| d * d * (1.0 + 0.2 * stream.normal())).collect();
            let reward = (0..60).map(|_| truth.at(d) * (1.0 + shift) + 0.3 * stream.normal()).collect();
            Checkpoint { kl, reward }
        };
        (1..=5).map(checkpoint).collect()
    };
    Method { form: Form::Learning, runs: (0..6).map(run).collect() }
}

fn draws(resamples: usize) -> Resampling<'static> {
    Resampling { resamples, seed: 3, purpose: "test/frontier" }
}

#[test]
fn a_method_that_reaches_more_at_every_distance_lies_above_and_one_compared_with_itself_does_not() {
    let methods = [method(1.0, 0.3, 0.02, 1), method(0.7, 0.3, 0.02, 2), method(0.7, 0.3, 0.02, 3)];
    let found: Vec<Frontier> = frontiers(&methods, draws(300)).into_iter().map(Option::unwrap).collect();
    let above = gap(&found[0], &found[1]).unwrap();
    assert_eq!([above.from, above.to], [found[0].reach[0].max(found[1].reach[0]), found[0].reach[1].min(found[1].reach[1])]);
    assert!(above.mean.percentile(0.95).lower > 0.0);
    // 0.3 d on average over the distances, which is linear in them.
    let expected = 0.3 * (above.from + above.to) / 2.0;
    assert!((above.mean.value - expected).abs() < 0.1, "{} {expected}", above.mean.value);
    let same = gap(&found[1], &found[2]).unwrap().mean.percentile(0.95);
    assert!(same.lower < 0.0 && 0.0 < same.upper, "{same:?}");
    let itself = gap(&found[1], &found[1]).unwrap().mean;
    assert_eq!([itself.value, itself.percentile(0.95).width()], [0.0, 0.0], "draws are shared");
}

#[test]
fn the_interval_of_a_difference_holds_the_truth_as_often_as_it_says() {
    let mut covered = 0;
    for draw in 0..200 {
        let methods = [method(1.0, 0.3, 0.1, 10 + 2 * draw), method(0.8, 0.3, 0.1, 11 + 2 * draw)];
        let found: Vec<Frontier> = frontiers(&methods, draws(200)).into_iter().map(Option::unwrap).collect();
        let gap = gap(&found[0], &found[1]).unwrap();
        let (truth, interval) = (0.2 * (gap.from + gap.to) / 2.0, gap.mean.percentile(0.95));
        covered += u32::from(interval.lower <= truth && truth <= interval.upper);
    }
    // Six runs a method: percentiles are a little narrow.
    assert!((176..=197).contains(&covered), "{covered} of 200");
}

#[test]
fn the_peak_of_a_hump_is_found_where_it_was_put() {
    let d = 1.6_f64;
    let beta = 0.5;
    let method = method(beta * (1.0 + libm::log(d)), beta, 0.02, 7);
    let found = frontiers(&[method], draws(300)).remove(0).unwrap();
    let (peak, distance, _) = found.peak().unwrap();
    let share = found.falls();
    let interval = distance.unwrap().percentile(0.95);
    assert!(share > 0.9 && interval.lower < d && d < interval.upper, "{peak:?} {share} {interval:?}");
    let (value, band) = found.at(d, 0.95).unwrap();
    assert!(band.lower < value && value < band.upper && found.residual() < 0.2);
}

#[test]
fn three_runs_vary_as_much_as_a_mean_of_three_does() {
    // One prompt: all variance is that of runs, s² / 3.
    let runs = vec![vec![vec![1.0], vec![2.0], vec![4.0]]];
    let (value, replicates) = means(&runs, draws(20_000)).unwrap().remove(0);
    let error = Bootstrap::new(value, replicates).unwrap().standard_error();
    let expected = (7.0_f64 / 3.0 / 3.0).sqrt();
    assert!((error - expected).abs() < 0.01 * expected, "{error} {expected}");
}

#[test]
fn what_cannot_be_compared_is_not() {
    assert!(frontiers(&[], draws(10)).is_empty());
    let one = Method { form: Form::Learning, runs: vec![vec![Checkpoint { kl: vec![1.0, 2.0], reward: vec![0.0, 1.0] }]] };
    assert_eq!(frontiers(&[one], draws(10)), [None]);
    assert!(means(&[vec![vec![1.0], vec![1.0, 2.0]]], draws(10)).is_none());
    assert!(means(&[vec![]], draws(10)).is_none());
}

/// SciPy 1.17.1: the ratio of the pooled variances over `f.ppf(0.975, 4, 6)` and over `f.ppf(0.025, 4, 6)`.
const SCIPY: [f64; 3] = [5.435567010309278, 0.872880413216346, 49.992600686555015];

#[test]
fn the_interval_of_a_ratio_of_variances_is_scipys() {
    let a = [vec![1.0, 2.0, 4.0], vec![0.5, 0.7, 0.6]];
    let b = [vec![3.0, 3.5, 2.0], vec![1.0, 1.0, 1.4], vec![2.0, 2.2, 2.1]];
    let found = variance_ratio(&a, &b, 0.95).unwrap();
    assert_eq!(found.df, [4, 6]);
    for (found, expected) in [found.value, found.interval.lower, found.interval.upper].into_iter().zip(SCIPY) {
        assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
    }
    assert!(variance_ratio(&a, &[vec![1.0, 1.0]], 0.95).is_none());
    assert!(variance_ratio(&a, &[vec![1.0]], 0.95).is_none());
}
