//! Two finished runs, or two variants of one, on the same prompts.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Kind, Result};
use crate::estimates::pairing::{Common, Difference, Side, differences};
use crate::estimates::summary::Evidence;
use crate::generate::REFERENCE;
use crate::judge::GOLD;
use crate::report::{Comparison, ComparisonRow, ReportData, RunName};
use crate::statistics::power::prompts_to_decide;
use crate::suite::with_suggestion;

/// New minus old. `pairs`: which variant of the old run with which of the new; where there are none, those of the same name, or the
/// only ones.
///
/// # Errors
/// A variant that isn't there; runs that have no variant, or no prompt with the same text, in common.
pub fn compare_runs(old: &ReportData, new: &ReportData, pairs: &[(String, String)]) -> Result<Comparison> {
    let pairs = variants(old, new, pairs)?;
    let prompts = common_prompts(old, new);
    if prompts.is_empty() {
        return Err(Error::new(Kind::NothingSelected, "the runs have no prompt in common, so nothing can be paired")
            .help("prompts are paired where both runs have them under the same id with the same text"));
    }
    let mut notes = Vec::new();
    let judges = common_judges(old, new, &mut notes);
    let same_pairs = output(old, "pairs") == output(new, "pairs");
    if !same_pairs {
        notes.push("the held-out pairs differ, so implicit rewards are not compared".to_owned());
    }
    reference_note(old, new, &prompts, &mut notes);
    let mut rows = Vec::new();
    for (old_variant, new_variant) in pairs {
        let (Some(a), Some(b)) = (side(old, old_variant), side(new, new_variant)) else { continue };
        let level = new.estimates.first().map_or(0.95, |e| e.level);
        let found = differences(a, b, Common { prompts: &prompts, judges: &judges, pairs: same_pairs }, level);
        rows.extend(found.into_iter().map(|difference| row(old_variant, new_variant, difference, level)));
    }
    if rows.is_empty() {
        return Err(Error::new(Kind::NothingSelected, "the runs have no number in common that could be compared"));
    }
    let name = |data: &ReportData| RunName { suite: data.suite.name.clone(), digest: data.suite.digest.to_string() };
    Ok(Comparison { old: name(old), new: name(new), notes, rows })
}

/// Names of the variants that are compared, old and new.
fn variants<'a>(old: &'a ReportData, new: &'a ReportData, pairs: &'a [(String, String)]) -> Result<Vec<(&'a str, &'a str)>> {
    let names = |data: &'a ReportData| -> Vec<&'a str> { data.suite.variants.iter().map(|v| v.name.as_str()).collect() };
    let (of_old, of_new) = (names(old), names(new));
    for (which, names, wanted) in [("old", &of_old, 0), ("new", &of_new, 1)] {
        for pair in pairs {
            let name = if wanted == 0 { &pair.0 } else { &pair.1 };
            if !names.contains(&name.as_str()) {
                let listed: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
                return Err(Error::new(Kind::NothingSelected, format!("the {which} run has no variant `{name}`"))
                    .help(with_suggestion(name, &listed, "its variants are ")));
            }
        }
    }
    if !pairs.is_empty() {
        return Ok(pairs.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect());
    }
    let same: Vec<_> = of_old.iter().filter(|name| of_new.contains(name)).map(|name| (*name, *name)).collect();
    match (same.as_slice(), of_old.as_slice(), of_new.as_slice()) {
        ([], [old], [new]) => Ok(vec![(*old, *new)]),
        ([], ..) => Err(Error::new(Kind::NothingSelected, "the runs have no variant of the same name").help(format!(
            "say `--variant OLD=NEW`: old are {}; new are {}",
            of_old.join(", "),
            of_new.join(", ")
        ))),
        _ => Ok(same),
    }
}

fn side<'a>(data: &'a ReportData, variant: &'a str) -> Option<Side<'a>> {
    let evidence = Evidence {
        completions: &data.completions,
        judgments: &data.judgments,
        pair_scores: &data.pair_scores,
        judge_trials: &data.judge_trials,
        ..Evidence::default()
    };
    Some(Side { evidence, variant, checkpoint: data.last_checkpoint(variant)? })
}

/// Ids of the prompts that both have with the same text.
fn common_prompts<'a>(old: &'a ReportData, new: &'a ReportData) -> BTreeSet<&'a str> {
    let texts = |data: &'a ReportData| -> BTreeMap<&'a str, &'a str> {
        data.completions.iter().map(|c| (c.prompt_id.as_str(), c.prompt.as_str())).collect()
    };
    let of_new = texts(new);
    texts(old).into_iter().filter(|(id, text)| of_new.get(id) == Some(text)).map(|(id, _)| id).collect()
}

/// Judges of both runs that are the same model. The world's gold is no model: it is the same where the prompts are.
fn common_judges<'a>(old: &'a ReportData, new: &'a ReportData, notes: &mut Vec<String>) -> Vec<&'a str> {
    let of_old = old.judges();
    let mut judges = new.judges();
    judges.retain(|judge| of_old.contains(judge));
    judges.retain(|judge| {
        let id = format!("judge/{judge}");
        let same = *judge == GOLD || output(old, &id) == output(new, &id);
        if !same {
            notes.push(format!("judge `{judge}` is another model in either run, so its win rates are not compared"));
        }
        same
    });
    if judges.is_empty() {
        notes.push("no judge judged both runs, so there is no difference of win rates".to_owned());
    }
    judges
}

fn output<'a>(data: &'a ReportData, cell: &str) -> Option<&'a crate::digest::Digest> {
    data.cells.iter().find(|c| c.id == cell).map(|c| &c.output)
}

/// Win rates are each against the run's own reference.
fn reference_note(old: &ReportData, new: &ReportData, prompts: &BTreeSet<&str>, notes: &mut Vec<String>) {
    let texts = |data: &ReportData| -> BTreeSet<(String, u32, String)> {
        let of_reference = |c: &&crate::generate::Completion| c.variant == REFERENCE && prompts.contains(c.prompt_id.as_str());
        data.completions.iter().filter(of_reference).map(|c| (c.prompt_id.clone(), c.sample, c.text.clone())).collect()
    };
    if texts(old) != texts(new) {
        notes.push(
            "the references completed the prompts differently: each win rate and KL is against the run's own reference"
                .to_owned(),
        );
    }
}

fn row(old_variant: &str, new_variant: &str, found: Difference, level: f64) -> ComparisonRow {
    let Difference { metric, judge, old, new, equal, measured } = found;
    let interval = measured.interval;
    let undecided = metric == "win_rate" && !equal && interval.lower <= 0.0 && interval.upper >= 0.0;
    ComparisonRow {
        old_variant: old_variant.to_owned(),
        new_variant: new_variant.to_owned(),
        metric: metric.to_owned(),
        judge,
        old,
        new,
        difference: measured.value,
        lower: interval.lower,
        upper: interval.upper,
        level,
        prompts: measured.clusters,
        equal,
        prompts_needed: undecided.then(|| prompts_to_decide(measured.value, interval, measured.clusters, level, 0.0)),
        method: measured.method.to_owned(),
    }
}
