//! The comparison itself: a report and a golden in, rows and one verdict out. See the module for the rules.

use std::collections::BTreeSet;

use super::golden::{Curve, Golden, GoldenVariant, bitwise_cells, failures, labelled_by, prompts};
use crate::checks::{Answer, Conclusion, percent};
use crate::estimates::sequential::{self, Stopped};
use crate::report::{GateReport, GateRow, ReportData, Verdict};
use crate::statistics::interval::Interval;
use crate::statistics::mean::{Clustered, Measured, Range, mean};
use crate::statistics::multiplicity::{Adjustment, adjust};
use crate::statistics::power::prompts_to_decide;
use crate::statistics::prediction_powered::{Predicted, Tuning, corrected_mean};
use crate::statistics::student::Located;
use crate::suite::settings::{GateSettings, Numerics};
use crate::train::TrainStep;
use crate::train::chain::Abridged;

/// How a difference that labels correct was measured.
const CORRECTED: &str = "PPI++ of paired differences, clustered t over labelled prompts";

pub fn compare(report: &ReportData, golden: &Golden, settings: &GateSettings) -> GateReport {
    let same_suite = report.suite.digest == golden.suite_digest;
    let mut rows = match report.suite.numerics {
        _ if report.suite.numerics != golden.numerics => vec![other_numerics(report, golden)],
        _ if !same_suite => vec![other_suite(report, golden)],
        Numerics::Strict => bitwise_rows(report, golden),
        Numerics::Fast => vec![no_digests(report, golden)],
    };
    let compared = golden.variants.iter().map(|variant| win_rate_row(report, golden, variant, settings)).collect();
    rows.extend(together(compared, golden.level));
    rows.extend(new_variants(report, golden));
    if same_suite {
        rows.extend(golden.curves.iter().flat_map(|curve| curve_rows(&report.train_log, curve, settings.curve_tolerance)));
    }
    rows.extend(finding_rows(report, golden));
    GateReport {
        // The name alone: where the file lies differs between machines, and reports must not.
        golden: settings.golden.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        golden_reason: golden.reason.clone(),
        verdict: overall(&rows),
        rows,
    }
}

fn overall(rows: &[GateRow]) -> Verdict {
    let any = |verdict| rows.iter().any(|row| row.verdict == verdict);
    match () {
        () if any(Verdict::Fail) => Verdict::Fail,
        () if any(Verdict::Inconclusive) => Verdict::Inconclusive,
        () => Verdict::Pass,
    }
}

fn row(kind: &str, name: &str, verdict: Verdict, golden: String, found: String, message: String) -> GateRow {
    GateRow {
        kind: kind.to_owned(),
        name: name.to_owned(),
        verdict,
        golden,
        found,
        difference: None,
        lower: None,
        upper: None,
        margin: None,
        prompts_needed: None,
        message,
    }
}

fn digest_rows(report: &ReportData, golden: &Golden) -> Vec<GateRow> {
    let found = bitwise_cells(report);
    let names: BTreeSet<&String> = golden.cells.keys().chain(found.keys()).collect();
    let compared = |name: &String| {
        let (old, new) = (golden.cells.get(name), found.get(name));
        let (verdict, message) = match (old, new) {
            (Some(old), Some(new)) if old == new => (Verdict::Pass, "same bits".to_owned()),
            (Some(_), Some(_)) => (Verdict::Fail, format!("cell `{name}` gave other bits than the golden, from the same suite")),
            (Some(_), None) => (Verdict::Fail, format!("cell `{name}` of the golden is missing in this run")),
            (None, _) => (Verdict::Pass, format!("cell `{name}` is new: the golden doesn't know it")),
        };
        let short = |digest: Option<&crate::digest::Digest>| digest.map_or_else(|| "none".to_owned(), |d| d.short());
        row("digest", name, verdict, short(old), short(new), message)
    };
    names.into_iter().map(compared).collect()
}

fn bitwise_rows(report: &ReportData, golden: &Golden) -> Vec<GateRow> {
    let chains = golden.chains.iter().map(|(cell, chain)| chain_row(cell, chain, report.chains.get(cell)));
    digest_rows(report, golden).into_iter().chain(chains).collect()
}

fn chain_row(cell: &str, golden: &Abridged, found: Option<&Abridged>) -> GateRow {
    let (verdict, message) = match found.map(|found| golden.first_difference(found)) {
        Some(None) => (Verdict::Pass, format!("the same bits in all {} steps", golden.steps())),
        Some(Some(step)) => {
            let message = format!(
                "the training of `{cell}` first gave other bits at step {step} of {}; `dpo-eval repro` compares settings of this machine",
                golden.steps()
            );
            (Verdict::Fail, message)
        }
        None => (Verdict::Fail, format!("this run has no digest chain of `{cell}`")),
    };
    let last = |chain: &Abridged| chain.last.short();
    row("chain", cell, verdict, last(golden), found.map_or_else(|| "none".to_owned(), last), message)
}

fn other_suite(report: &ReportData, golden: &Golden) -> GateRow {
    row(
        "digest",
        "suite",
        Verdict::Pass,
        golden.suite_digest.short(),
        report.suite.digest.short(),
        "the suite's settings are not those of the golden, so bits and curves need not hold: win rates and findings decide"
            .to_owned(),
    )
}

/// The mode is part of the suite's digest, so bits and curves aren't compared here either.
fn other_numerics(report: &ReportData, golden: &Golden) -> GateRow {
    let (old, new) = (golden.numerics.name(), report.suite.numerics.name());
    let message = format!(
        "the golden was computed in {old} arithmetic, this run in {new}: bits and curves need not hold, win rates and findings decide"
    );
    row("numerics", "suite", Verdict::Pass, old.to_owned(), new.to_owned(), message)
}

fn no_digests(report: &ReportData, golden: &Golden) -> GateRow {
    let message = "digests are not compared: fast arithmetic gives the same bits on one machine only, so numbers decide";
    let mode = report.suite.numerics.name().to_owned();
    row("numerics", "suite", Verdict::Pass, golden.numerics.name().to_owned(), mode, message.to_owned())
}

fn new_variants<'a>(report: &'a ReportData, golden: &'a Golden) -> impl Iterator<Item = GateRow> + 'a {
    let known = |name: &str| golden.variants.iter().any(|v| v.name == name);
    report.conclusions.iter().filter(move |c| !known(&c.variant)).map(|c| {
        let message = format!("variant `{}` is new: the golden has nothing to compare it with", c.variant);
        row("win-rate", &c.variant, Verdict::Pass, "none".to_owned(), shown(c), message)
    })
}

fn shown(conclusion: &Conclusion) -> String {
    let e = &conclusion.win_rate;
    percent(e.value, e.lower, e.upper)
}

/// A comparison of win rates, and the one-sided p of a loss beyond the margin where the differences have a spread.
type Compared = (GateRow, Option<f64>);

/// What the answers of one ONNX Runtime differ by between kinds of CPUs, at most.
const ROUNDING: f64 = 1e-5;

fn win_rate_row(report: &ReportData, golden: &Golden, variant: &GoldenVariant, settings: &GateSettings) -> Compared {
    let name = &variant.name;
    let Some(conclusion) = report.conclusions.iter().find(|c| c.variant == *name) else {
        let message = format!("variant `{name}` of the golden is missing in this run");
        return (row("win-rate", name, Verdict::Fail, variant.shown(), "none".to_owned(), message), None);
    };
    let undecided = |message: String| row("win-rate", name, Verdict::Inconclusive, variant.shown(), shown(conclusion), message);
    if report.judge != golden.judge {
        let message = format!(
            "the golden was decided by judge `{}`, this run by `{}`: their win rates can't be compared; accept a new golden",
            golden.judge, report.judge
        );
        return (undecided(message), None);
    }
    let labels = labelled_by(report);
    if labels != golden.labels {
        let by = |labels: &Option<String>| match labels {
            Some(judge) => format!("are corrected by labels of `{judge}`"),
            None => "aren't corrected by labels".to_owned(),
        };
        let message = format!(
            "the golden's win rates {}, this run's {}: they can't be compared; accept a new golden",
            by(&golden.labels),
            by(&labels)
        );
        return (undecided(message), None);
    }
    if conclusion.answer == Answer::Void {
        let message = format!("judge `{}` is unfit, so the win rate of `{name}` is void", report.judge);
        return (undecided(message), None);
    }
    let new = GoldenVariant::of(report, conclusion);
    let stopped = report.sequential.iter().find(|stopped| stopped.variant == *name);
    // Of a run that stopped early, the prompts that it judged.
    let same = |(prompt, p): (&String, &f64)| variant.preferences.get(prompt).is_some_and(|other| (p - other).abs() <= ROUNDING);
    let same_preferences = match stopped {
        None => new.preferences.len() == variant.preferences.len() && new.preferences.iter().all(same),
        Some(_) => new.preferences.iter().all(same),
    };
    if new.completions == variant.completions && same_preferences && new.labels == variant.labels {
        let message = format!("same completions, preferences within {ROUNDING:e}: no difference");
        let mut row = row("win-rate", name, Verdict::Pass, variant.shown(), shown(conclusion), message);
        (row.difference, row.lower, row.upper, row.margin) = (Some(0.0), Some(0.0), Some(0.0), Some(settings.margin));
        return (row, None);
    }
    let pairs = paired(report, golden, variant, &new, stopped);
    let how = match stopped {
        Some(_) => How::Anytime,
        None if golden.labels.is_some() => How::Corrected,
        None => How::Plain,
    };
    match difference(&pairs, how, golden.level, settings.margin) {
        Some((measured, p)) => (judged(&measured, golden.level, settings.margin, undecided(String::new())), p),
        None if pairs.is_empty() => {
            (undecided("no prompt of the golden was evaluated in this run, so nothing can be paired".to_owned()), None)
        }
        None => {
            let message =
                "fewer than two prompts have labels in both runs, so the difference can't be corrected by them".to_owned();
            (undecided(message), None)
        }
    }
}

/// New minus golden on one prompt: by the judge, and by the labels where both have one.
struct Paired {
    judge: f64,
    label: Option<f64>,
}

/// How a difference gets its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    /// Labels correct it.
    Corrected,
    /// The run might stop early.
    Anytime,
}

/// Over the prompts that both have, with the same text; in the order of judging where it might stop.
fn paired(
    report: &ReportData,
    golden: &Golden,
    old: &GoldenVariant,
    new: &GoldenVariant,
    stopped: Option<&Stopped>,
) -> Vec<Paired> {
    let texts = prompts(report);
    let difference = |old: Option<&f64>, new: Option<&f64>| Some(new? - old?);
    let pair = |(prompt, preference): (&String, &f64)| {
        let same_text = texts.get(prompt) == golden.prompts.get(prompt);
        let judge = difference(Some(preference), new.preferences.get(prompt).filter(|_| same_text))?;
        Some(Paired { judge, label: difference(old.labels.get(prompt), new.labels.get(prompt)) })
    };
    match stopped {
        None => old.preferences.iter().filter_map(pair).collect(),
        Some(stopped) => stopped.prompts.iter().filter_map(|prompt| pair(old.preferences.get_key_value(prompt)?)).collect(),
    }
}

/// The mean difference, and the one-sided p of a loss beyond the margin where there is a spread.
fn difference(pairs: &[Paired], how: How, level: f64, margin: f64) -> Option<(Measured, Option<f64>)> {
    let corrected = how == How::Corrected;
    if how == How::Anytime {
        let differences: Vec<f64> = pairs.iter().map(|pair| pair.judge).collect();
        let interval = sequential::interval_of_differences(&differences, level)?;
        let (value, n) = (differences.iter().sum::<f64>() / differences.len() as f64, differences.len());
        let interval = Interval { lower: interval.lower.min(value), upper: interval.upper.max(value) };
        let p = sequential::chance_of_difference(&differences, -margin, level);
        return Some((Measured { value, interval, n, clusters: n, method: sequential::ANYTIME }, Some(p)));
    }
    let below = |value: f64, standard_error: f64, clusters: usize| {
        let df = (clusters - 1) as f64;
        (standard_error > 0.0).then(|| Located { value, standard_error, df }.below(-margin).p)
    };
    let labels = pairs.iter().filter_map(|pair| pair.label);
    let unlabelled = pairs.iter().any(|pair| pair.label.is_none());
    if corrected && unlabelled {
        return by_labels(pairs, level).map(|(measured, error, clusters)| {
            let p = below(measured.value, error, clusters);
            (measured, p)
        });
    }
    let differences = match corrected {
        true => Clustered::new(labels.enumerate()),
        false => Clustered::new(pairs.iter().map(|pair| pair.judge).enumerate()),
    };
    let measured = mean(&differences, Range::DIFFERENCE, level)?;
    let p = differences.standard_error().and_then(|error| below(measured.value, error, differences.clusters()));
    Some((measured, p))
}

/// What the labels would say of the difference, from the judge's differences on all prompts and the labels' on some (PPI++, as in
/// `win_rate_corrected`): with its standard error, and the number of labelled prompts.
fn by_labels(pairs: &[Paired], level: f64) -> Option<(Measured, f64, usize)> {
    let predicted: Vec<Predicted> =
        pairs.iter().enumerate().map(|(cluster, p)| Predicted { judge: p.judge, label: p.label, cluster }).collect();
    let corrected = corrected_mean(&predicted, Tuning::Best)?;
    let interval = corrected.interval_of_few(level)?.within(-1.0, 1.0);
    let clusters = corrected.labelled_clusters as f64;
    let error = corrected.standard_error * (clusters / (clusters - 1.0)).sqrt();
    let (value, n) = (corrected.value.clamp(-1.0, 1.0), pairs.len());
    Some((Measured { value, interval, n, clusters: n, method: CORRECTED }, error, corrected.labelled_clusters))
}

/// All variants pass or the gate doesn't, which needs no correction. But one of many may seem to fail by chance: a failure
/// stands where it does among all comparisons (Holm 1979), so that the chance of any wrong one stays (1 − level) / 2.
fn together(compared: Vec<Compared>, level: f64) -> Vec<GateRow> {
    let seen: Vec<f64> = compared.iter().filter_map(|(_, p)| *p).collect();
    let mut adjusted = adjust(&seen, Adjustment::Holm).into_iter();
    let decide = |(mut row, p): Compared| {
        let chance = p.and_then(|_| adjusted.next());
        if let Some(chance) = chance.filter(|chance| row.verdict == Verdict::Fail && *chance > (1.0 - level) / 2.0) {
            row.verdict = Verdict::Inconclusive;
            row.message =
                format!("{}, but among {} comparisons it may be chance (Holm: p = {chance:.3})", row.message, seen.len());
        }
        row
    };
    compared.into_iter().map(decide).collect()
}

/// Non-inferiority with three answers (METHODS: the gate rule): each error, failing a policy at the margin or passing one, has
/// chance (1 − level) / 2.
fn judged(difference: &Measured, level: f64, margin: f64, mut row: GateRow) -> GateRow {
    let (value, interval) = (difference.value, difference.interval);
    let how = match difference.method {
        CORRECTED => ", corrected by labels",
        sequential::ANYTIME => ", whenever the run stops",
        _ => "",
    };
    let size = format!(
        "{:+.1} points [{:+.1}, {:+.1}] on {} common prompts{how}",
        100.0 * value,
        100.0 * interval.lower,
        100.0 * interval.upper,
        difference.clusters
    );
    let allowed = format!("{:.1} points", 100.0 * margin);
    (row.verdict, row.message) = match () {
        () if interval.upper < -margin => (Verdict::Fail, format!("{size}: a loss of more than {allowed}")),
        () if interval.lower > -margin => (Verdict::Pass, format!("{size}: no loss of {allowed} or more")),
        () => {
            let needed = prompts_to_decide(value, interval, difference.clusters, level, -margin);
            row.prompts_needed = Some(needed);
            (
                Verdict::Inconclusive,
                format!("{size}: can't be told from a loss of {allowed}; about {needed} prompts would decide"),
            )
        }
    };
    (row.difference, row.lower, row.upper, row.margin) = (Some(value), Some(interval.lower), Some(interval.upper), Some(margin));
    row
}

/// One row for the loss and one for the margins of a training run.
fn curve_rows(log: &[TrainStep], curve: &Curve, tolerance: f64) -> Vec<GateRow> {
    let run: Vec<&TrainStep> = log.iter().filter(|r| r.variant == curve.variant && r.seed == curve.seed).collect();
    let loss = |step: &TrainStep| Some(step.loss);
    let margins = |step: &TrainStep| step.rewards_margins;
    let golden_loss: Vec<Option<f64>> = curve.loss.iter().copied().map(Some).collect();
    vec![
        curve_row(&run, curve, "loss", &golden_loss, loss, tolerance),
        curve_row(&run, curve, "rewards/margins", &curve.margins, margins, tolerance),
    ]
}

/// The point of a curve that is farthest from the golden, relative to the largest value of the golden's curve (margins begin
/// at zero, where a ratio of single points would mean nothing). Steps without a value in the golden aren't compared.
fn curve_row(
    run: &[&TrainStep],
    curve: &Curve,
    metric: &str,
    values: &[Option<f64>],
    of: fn(&TrainStep) -> Option<f64>,
    tolerance: f64,
) -> GateRow {
    let name = format!("{} seed {} {metric}", curve.variant, curve.seed);
    let scale = values.iter().flatten().fold(f64::MIN_POSITIVE, |scale, v| scale.max(v.abs()));
    let mut worst: Option<(u64, f64, f64, f64)> = None;
    for (step, golden) in curve.steps.iter().zip(values) {
        let Some(golden) = golden else { continue };
        let Some(found) = run.iter().find(|r| r.step == *step).and_then(|r| of(r)) else {
            let message = format!("this run has no step {step} with {metric} of {} seed {}", curve.variant, curve.seed);
            return row("curve", &name, Verdict::Fail, format!("{golden:.6}"), "none".to_owned(), message);
        };
        let deviation = (found - golden).abs() / scale;
        let deviation = if deviation.is_nan() { f64::INFINITY } else { deviation };
        if worst.is_none_or(|(.., most)| deviation > most) {
            worst = Some((*step, *golden, found, deviation));
        }
    }
    let (step, golden, found, deviation) = worst.unwrap_or_default();
    let verdict = if deviation <= tolerance { Verdict::Pass } else { Verdict::Fail };
    let message = format!(
        "farthest at step {step}: {:.3} % of the curve's largest value, {:.3} % allowed",
        100.0 * deviation,
        100.0 * tolerance
    );
    row("curve", &name, verdict, format!("{golden:.6}"), format!("{found:.6}"), message)
}

fn finding_rows(report: &ReportData, golden: &Golden) -> Vec<GateRow> {
    let compared = |name: String| {
        let known = golden.failures.contains(&name);
        let (verdict, before, message) = if known {
            (Verdict::Pass, "fails", "accepted: the golden has it too".to_owned())
        } else {
            (Verdict::Fail, "none", format!("`{name}` fails in this run and didn't in the golden"))
        };
        row("finding", &name, verdict, before.to_owned(), "fails".to_owned(), message)
    };
    failures(report).into_iter().map(compared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_many_comparisons_must_stand_among_all() {
        let failed =
            |p: Option<f64>| (row("win-rate", "dpo", Verdict::Fail, String::new(), String::new(), "a loss".to_owned()), p);
        let passed = (row("win-rate", "kto", Verdict::Pass, String::new(), String::new(), "no loss".to_owned()), Some(0.9));
        let verdicts = |rows: Vec<Compared>| together(rows, 0.95).iter().map(|r| r.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(vec![failed(Some(0.02))]), [Verdict::Fail]);
        assert_eq!(verdicts(vec![failed(Some(0.02)), passed.clone()]), [Verdict::Inconclusive, Verdict::Pass]);
        assert_eq!(verdicts(vec![failed(Some(0.01)), passed.clone()]), [Verdict::Fail, Verdict::Pass]);
        // A variant that is missing, or differs by the same everywhere, fails whatever others do.
        assert_eq!(verdicts(vec![passed, failed(None)]), [Verdict::Pass, Verdict::Fail]);
        let rows = together(vec![failed(Some(0.02)), failed(Some(0.02))], 0.95);
        assert!(rows[0].message.contains("among 2 comparisons") && rows[0].verdict == Verdict::Inconclusive);
    }
}
