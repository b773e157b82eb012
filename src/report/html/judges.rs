//! How far the judges can be trusted: held-out accuracy, position effect, consistency, agreement with gold.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::judge::{GOLD, Judgment, Outcome};

use crate::estimates::Estimate;

use super::super::ReportData;
use super::super::chart::{self, Axis, Plot};
use super::{Figure, Number};

#[derive(Serialize)]
pub(super) struct Section {
    fitness: Vec<Fitness>,
    calibration: Vec<Calibration>,
    reliability: Vec<Figure>,
    probes: Vec<Probed>,
    panels: Vec<Together>,
    any_labels: bool,
    consistency: Vec<Consistency>,
    agreement: Vec<Agreement>,
    positions: Vec<Figure>,
}

/// One judge on held-out labelled pairs.
#[derive(Serialize)]
struct Fitness {
    judge: String,
    decides: bool,
    accuracy: Option<Number>,
    /// Against the labels, where the accuracy is against gold.
    labels: Option<Number>,
    brier: Option<Number>,
    position: Option<Number>,
    longer: Option<Number>,
}

/// The same judge's probabilities, and its agreement beyond chance.
#[derive(Serialize)]
struct Calibration {
    judge: String,
    numbers: Vec<Option<Number>>,
}

/// What a judge does on probes, a number a probe.
#[derive(Serialize)]
struct Probed {
    judge: String,
    decides: bool,
    numbers: Vec<Option<Number>>,
}

/// A panel, or a judge and whoever labels, on what one variant wrote.
#[derive(Serialize)]
struct Together {
    judge: String,
    variant: String,
    panel: Option<Number>,
    kappa: Option<Number>,
    alpha: Option<Number>,
}

/// One judge on the completions of one variant.
#[derive(Serialize)]
struct Consistency {
    judge: String,
    variant: String,
    consistency: Option<Number>,
    position: Option<Number>,
    ties: Option<Number>,
}

/// Counts of a judge's outcomes by gold's outcomes on the same items.
#[derive(Serialize)]
struct Agreement {
    judge: String,
    rows: Vec<(&'static str, [usize; 3])>,
    /// `61 of 80 items (0.763)`.
    same: String,
}

pub(super) fn section(data: &ReportData) -> Section {
    let judges: Vec<&str> = data.judges().into_iter().filter(|j| *j != GOLD).collect();
    let last = last_judgments(data);
    let positions = judges.iter().enumerate().filter_map(|(number, judge)| {
        let effects: Vec<f64> = last.iter().filter(|j| j.judge == *judge).filter_map(|j| j.position_effect).collect();
        super::histogram::position_effects(number, judge, &effects)
    });
    Section {
        any_labels: judges.iter().any(|judge| by_labels(data, judge).is_some()),
        fitness: judges.iter().filter_map(|judge| fitness(data, judge)).collect(),
        consistency: judges.iter().flat_map(|judge| consistency(data, judge)).collect(),
        agreement: judges.iter().filter_map(|judge| agreement(&last, judge)).collect(),
        calibration: judges.iter().filter_map(|judge| calibration(data, judge)).collect(),
        reliability: judges.iter().enumerate().filter_map(|(number, judge)| reliability(data, number, judge)).collect(),
        // Gold too: what the truth says of them.
        probes: data.judges().into_iter().filter_map(|judge| probed(data, judge)).collect(),
        panels: judges.iter().flat_map(|judge| together(data, judge)).collect(),
        positions: positions.collect(),
    }
}

fn last_judgments(data: &ReportData) -> Vec<&Judgment> {
    let last: BTreeMap<&str, Option<u64>> =
        data.suite.variants.iter().map(|v| (v.name.as_str(), data.last_checkpoint(&v.name))).collect();
    data.judgments.iter().filter(|j| last.get(j.variant.as_str()) == Some(&Some(j.checkpoint))).collect()
}

fn fitness(data: &ReportData, judge: &str) -> Option<Fitness> {
    let find = |metric: &str| data.estimate(metric, "", None, None, Some(judge)).map(Number::of);
    let row = Fitness {
        judge: judge.to_owned(),
        decides: judge == data.judge,
        accuracy: find("judge_accuracy"),
        labels: by_labels(data, judge),
        brier: find("judge_brier"),
        position: find("judge_position_effect"),
        longer: find("judge_longer_preference"),
    };
    let any = [&row.accuracy, &row.brier, &row.position, &row.longer].iter().any(|n| n.is_some());
    any.then_some(row)
}

const CALIBRATION: [&str; 6] = ["judge_log_loss", "judge_auc", "judge_ece", "judge_kappa", "judge_alpha", "judge_length_bias"];

fn calibration(data: &ReportData, judge: &str) -> Option<Calibration> {
    let numbers = CALIBRATION.map(|metric| data.estimate(metric, "", None, None, Some(judge)).map(Number::of));
    let any = numbers.iter().any(Option::is_some);
    any.then(|| Calibration { judge: judge.to_owned(), numbers: numbers.into() })
}

const PROBES: [&str; 6] = [
    "probe_null_win_rate",
    "probe_empty_win_rate",
    "probe_filler_gain",
    "probe_markdown_gain",
    "probe_injection_gain",
    "probe_identical_bias",
];

fn probed(data: &ReportData, judge: &str) -> Option<Probed> {
    let numbers = PROBES.map(|metric| data.estimate(metric, "", None, None, Some(judge)).map(Number::of));
    let any = numbers.iter().any(Option::is_some);
    any.then(|| Probed { judge: judge.to_owned(), decides: judge == data.judge, numbers: numbers.into() })
}

fn together(data: &ReportData, judge: &str) -> Vec<Together> {
    let of = |v: &super::super::VariantInfo| {
        let find = |metric: &str| data.headline(metric, &v.name, Some(judge)).map(Number::of);
        let row = Together {
            judge: judge.to_owned(),
            variant: data.label(&v.name).to_owned(),
            panel: find("panel_alpha"),
            kappa: find("label_kappa"),
            alpha: find("label_alpha"),
        };
        let any = [&row.panel, &row.kappa, &row.alpha].iter().any(|n| n.is_some());
        any.then_some(row)
    };
    data.suite.variants.iter().filter_map(of).collect()
}

/// How often a judge is right where it is so sure, against the line of a calibrated one.
fn reliability(data: &ReportData, number: usize, judge: &str) -> Option<Figure> {
    let of = |e: &&Estimate| e.metric == "judge_reliability" && e.judge.as_deref() == Some(judge);
    let middle = |e: &Estimate| {
        let ends = e.slice.as_deref()?.strip_prefix("stated ")?.split_once(" to ")?;
        Some((ends.0.parse::<f64>().ok()? + ends.1.parse::<f64>().ok()?) / 2.0)
    };
    let points: Vec<(f64, &Estimate)> = data.estimates.iter().filter(of).filter_map(|e| Some((middle(e)?, e))).collect();
    if points.is_empty() {
        return None;
    }
    let x = Axis::fit("stated probability of the side it favours", [0.5, 1.0], 5);
    let y = Axis::fit(
        "share of pairs on which it is right",
        points.iter().flat_map(|(_, e)| [e.lower, e.upper]).chain([0.5, 1.0]),
        5,
    );
    let about =
        format!("Reliability of {judge}: how often it is right where it is so sure, with the line of a calibrated judge.");
    let mut plot = Plot::new(&format!("reliability-{number}"), judge, &about, (340.0, 230.0), x, y);
    let class = chart::colour(number);
    plot.line("ref dashed", &[(0.5, 0.5), (1.0, 1.0)]);
    for (stated, e) in points {
        plot.error_y(&class, stated, e.lower, e.upper);
        let words = format!("stated {stated:.2}: right on {} of {} pairs", super::format::percent(e.value), e.n);
        plot.point(number, &class, (stated, e.value), &words);
    }
    let caption = "Dashed: a calibrated judge. Bars are intervals over prompts.".to_owned();
    Some(Figure { title: judge.to_owned(), svg: super::safe(plot.finish()), narrow: None, caption })
}

fn by_labels(data: &ReportData, judge: &str) -> Option<Number> {
    let matches =
        |e: &&Estimate| e.metric == "judge_accuracy" && e.judge.as_deref() == Some(judge) && e.slice.as_deref() == Some("labels");
    data.estimates.iter().find(matches).map(Number::of)
}

fn consistency(data: &ReportData, judge: &str) -> Vec<Consistency> {
    let of = |v: &super::super::VariantInfo| {
        let find = |metric: &str| data.headline(metric, &v.name, Some(judge)).map(Number::of);
        let row = Consistency {
            judge: judge.to_owned(),
            variant: data.label(&v.name).to_owned(),
            consistency: find("order_consistency"),
            position: find("position_effect"),
            ties: find("tie_rate"),
        };
        let any = [&row.consistency, &row.position, &row.ties].iter().any(|n| n.is_some());
        any.then_some(row)
    };
    data.suite.variants.iter().filter_map(of).collect()
}

type Item<'a> = (&'a str, Option<u64>, u64, &'a str, u32);

fn item(j: &Judgment) -> Item<'_> {
    (&j.variant, j.seed, j.checkpoint, &j.prompt_id, j.sample)
}

fn agreement(judgments: &[&Judgment], judge: &str) -> Option<Agreement> {
    let gold: BTreeMap<Item, Outcome> = judgments.iter().filter(|j| j.judge == GOLD).map(|j| (item(j), j.outcome)).collect();
    let place = |outcome| match outcome {
        Outcome::Win => 0,
        Outcome::Tie => 1,
        Outcome::Loss => 2,
    };
    let mut counts = [[0; 3]; 3];
    for j in judgments.iter().filter(|j| j.judge == judge) {
        if let Some(&truth) = gold.get(&item(j)) {
            counts[place(j.outcome)][place(truth)] += 1;
        }
    }
    let total: usize = counts.iter().flatten().sum();
    let same = counts[0][0] + counts[1][1] + counts[2][2];
    let share = super::format::fixed(same as f64 / total as f64, 3);
    (total > 0).then(|| Agreement {
        judge: judge.to_owned(),
        rows: ["win", "tie", "loss"].into_iter().zip(counts).collect(),
        same: format!("{same} of {} ({share})", super::format::plural(total, "item")),
    })
}
