//! How far the judges can be trusted: held-out accuracy, position effect, consistency, agreement with gold.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::judge::{GOLD, Judgment, Outcome};

use crate::estimates::Estimate;

use super::super::ReportData;
use super::{Figure, Number};

#[derive(Serialize)]
pub(super) struct Section {
    fitness: Vec<Fitness>,
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
