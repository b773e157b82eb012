//! The golden file: what a run was when it was accepted. It changes only by `baseline accept --reason`, and is read as a diff.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checks::{Answer, Conclusion, Severity, percent};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::estimates::sequential::GoldenRule;
use crate::generate::{Completion, REFERENCE};
use crate::report::{CellRow, ReportData};
use crate::suite::settings::Numerics;
use crate::train::TrainStep;
use crate::train::chain::Abridged;

/// Raised when the form changes; a golden of another form is refused.
const SCHEMA: u32 = 2;

/// Stages whose outputs pass through ONNX Runtime: their last bits may depend on its version and the processor.
const THROUGH_ONNX: [&str; 3] = ["judge", "probes", "judgments"];

/// Steps between the points of a curve that are kept; the first and the last step always are.
const STRIDE: u64 = 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub schema: u32,
    pub suite: String,
    pub suite_digest: Digest,
    /// The arithmetic that the run computed with.
    pub numerics: Numerics,
    /// Why this run was accepted.
    pub reason: String,
    /// The deciding judge.
    pub judge: String,
    /// Whose labels corrected its win rates; none: nobody's did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    pub level: f64,
    /// Output digests of the cells that must hold bitwise, by cell id: none in the fast arithmetic, whose bits are a machine's own.
    pub cells: BTreeMap<String, Digest>,
    /// Digest chains of the trainings that must hold bitwise, the judges' too (none of them passes through ONNX Runtime), by cell id.
    #[serde(default)]
    pub chains: BTreeMap<String, Abridged>,
    pub variants: Vec<GoldenVariant>,
    pub curves: Vec<Curve>,
    /// Findings of severity fail that were accepted: id and variant.
    pub failures: Vec<String>,
    /// Short digest of each evaluation prompt's text, by id: preferences are paired only where the text is the same.
    pub prompts: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenVariant {
    pub name: String,
    /// The last one, which the numbers below are of.
    pub checkpoint: u64,
    pub answer: Answer,
    pub win_rate: f64,
    pub lower: f64,
    pub upper: f64,
    /// Digest of the completion rows that were judged, the reference's included.
    pub completions: Digest,
    /// Preference for the policy by the deciding judge, averaged over seeds and samples, by prompt id.
    pub preferences: BTreeMap<String, f64>,
    /// What the labels said, where they corrected the win rate: averaged likewise, of the labelled prompts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, f64>,
}

/// Loss and reward margins of one training run at some of its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    pub variant: String,
    pub seed: u64,
    pub steps: Vec<u64>,
    pub loss: Vec<f64>,
    /// None where a step's batch had no margin: a single side of it only.
    pub margins: Vec<Option<f64>>,
}

impl Golden {
    /// What a later run is compared with. An error when there is no reason, or nothing to compare.
    pub fn from_report(report: &ReportData, reason: &str) -> Result<Self> {
        if reason.trim().is_empty() {
            return Err(Error::usage("a golden file needs a reason").help("say why these results are right: `--reason \"…\"`"));
        }
        if report.conclusions.is_empty() {
            return Err(Error::new(Kind::Incomplete, "this run has no win rate, so there is nothing to accept")
                .help("finish the run first: `dpo-eval suite run`"));
        }
        if report.sequential.iter().any(|stopped| stopped.prompts.len() < stopped.of) {
            return Err(Error::new(
                Kind::Incomplete,
                "this run stopped judging early, which flatters whatever looked good by chance",
            )
            .help("accept a run of all prompts: `dpo-eval suite run` without --sequential asks the judges for the rest alone"));
        }
        Ok(Self {
            schema: SCHEMA,
            suite: report.suite.name.clone(),
            suite_digest: report.suite.digest,
            numerics: report.suite.numerics,
            reason: reason.trim().to_owned(),
            judge: report.judge.clone(),
            labels: labelled_by(report),
            level: report.conclusions[0].win_rate.level,
            cells: bitwise_cells(report),
            chains: bitwise_chains(report),
            variants: report.conclusions.iter().map(|c| GoldenVariant::of(report, c)).collect(),
            curves: curves(&report.train_log),
            failures: failures(report),
            prompts: prompts(report),
        })
    }

    /// Reads the golden of the named suite.
    pub fn load(path: &Path, suite: &str) -> Result<Self> {
        let golden = Self::read(path)?;
        if golden.suite != suite {
            let message = format!("this golden file belongs to suite `{}`, not to `{suite}`", golden.suite);
            return Err(Error::input(message)
                .in_file(path)
                .help("name this suite's own golden file (`[gate] golden`), or accept one"));
        }
        Ok(golden)
    }

    /// Reads a golden file, whatever its suite.
    pub fn read(path: &Path) -> Result<Self> {
        let accept = "accept a run that you trust as golden: `dpo-eval baseline accept --reason \"…\"`";
        if !path.exists() {
            let message = format!("there is no golden file {}: the gate has nothing to compare with", path.display());
            return Err(Error::input(message).help(accept));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
        let wrong =
            |e: serde_json::Error| Error::input(format!("this is no golden file: {e}")).at_line(path, e.line()).help(accept);
        let value: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        if schema != Some(u64::from(SCHEMA)) {
            let found = schema.map_or("no version".to_owned(), |v| format!("version {v}"));
            let message = format!("this golden file has {found} of the form, {SCHEMA} is expected");
            return Err(Error::input(message).in_file(path).help(accept));
        }
        let golden: Self = serde_json::from_str(&text).map_err(wrong)?;
        if golden.variants.is_empty() {
            return Err(Error::input("this golden file holds no variant, so there is nothing to compare")
                .in_file(path)
                .help(accept));
        }
        Ok(golden)
    }

    /// When the judging of a variant may stop for the gate's sake. None where win rates can't be compared: the gate says why.
    pub fn sequential_rule(&self, variant: &str, judge: &str, margin: f64) -> Option<GoldenRule> {
        let own = self.variants.iter().find(|v| v.name == variant)?;
        (self.judge == judge && self.labels.is_none()).then(|| own.rule(&self.prompts, margin))
    }

    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("keys are strings");
        text.push('\n');
        text
    }
}

impl GoldenVariant {
    /// What a run that may stop early is held against (`Golden::sequential_rule`), and what each prompt reads.
    fn rule(&self, prompts: &BTreeMap<String, String>, margin: f64) -> GoldenRule {
        let of = |(prompt, preference): (&String, &f64)| Some((prompt.clone(), (prompts.get(prompt)?.clone(), *preference)));
        GoldenRule { margin, preferences: self.preferences.iter().filter_map(of).collect() }
    }

    pub(super) fn of(report: &ReportData, conclusion: &Conclusion) -> Self {
        let win_rate = &conclusion.win_rate;
        let checkpoint = win_rate.checkpoint.unwrap_or_default();
        let judged = |c: &&Completion| c.variant == REFERENCE || (c.variant == conclusion.variant && c.checkpoint == checkpoint);
        let completions: Vec<&Completion> = report.completions.iter().filter(judged).collect();
        Self {
            name: conclusion.variant.clone(),
            checkpoint,
            answer: conclusion.answer,
            win_rate: win_rate.value,
            lower: win_rate.lower,
            upper: win_rate.upper,
            completions: Digest::of_value(&completions),
            preferences: preferences(report, &report.judge, &conclusion.variant, checkpoint),
            labels: labels(report, conclusion),
        }
    }

    pub(super) fn shown(&self) -> String {
        percent(self.win_rate, self.lower, self.upper)
    }
}

/// Whose labels corrected the win rates that were concluded from.
pub(super) fn labelled_by(report: &ReportData) -> Option<String> {
    let corrected = report.conclusions.iter().any(|c| c.win_rate.metric == "win_rate_corrected");
    report.labelled.as_ref().filter(|_| corrected).map(|labelled| labelled.judge.clone())
}

/// Averaged as the preferences are, of the prompts whose labels were used.
fn labels(report: &ReportData, conclusion: &Conclusion) -> BTreeMap<String, f64> {
    let Some(labelled) = report.labelled.as_ref().filter(|_| conclusion.win_rate.metric == "win_rate_corrected") else {
        return BTreeMap::new();
    };
    let checkpoint = conclusion.win_rate.checkpoint.unwrap_or_default();
    let mut all = preferences(report, &labelled.judge, &conclusion.variant, checkpoint);
    all.retain(|prompt, _| labelled.prompts.contains(prompt));
    all
}

fn preferences(report: &ReportData, judge: &str, variant: &str, checkpoint: u64) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let judged = report.judgments.iter().filter(|j| j.judge == judge && j.variant == variant);
    for judgment in judged.filter(|j| j.checkpoint == checkpoint) {
        let entry = sums.entry(judgment.prompt_id.clone()).or_default();
        entry.0 += judgment.preference;
        entry.1 += 1.0;
    }
    sums.into_iter().map(|(prompt, (sum, count))| (prompt, sum / count)).collect()
}

pub(super) fn bitwise_cells(report: &ReportData) -> BTreeMap<String, Digest> {
    let through_onnx = |c: &CellRow| THROUGH_ONNX.contains(&c.stage.as_str()) || report.judged.contains(&c.id);
    let portable = |c: &&CellRow| report.suite.numerics == Numerics::Strict && !through_onnx(c);
    let cells = report.cells.iter().filter(portable);
    cells.map(|c| (c.id.clone(), c.output)).collect()
}

fn bitwise_chains(report: &ReportData) -> BTreeMap<String, Abridged> {
    let portable = |id: &str| report.suite.numerics == Numerics::Strict && !report.judged.contains(id);
    report.chains.iter().filter(|(id, _)| portable(id)).map(|(id, chain)| (id.clone(), chain.clone())).collect()
}

/// Id and variant of each finding that fails.
pub(super) fn failures(report: &ReportData) -> Vec<String> {
    let failing = report.findings.iter().filter(|f| f.severity == Severity::Fail);
    let mut names: Vec<String> = failing.map(|f| format!("{} {}", f.id, f.variant).trim_end().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

pub(super) fn prompts(report: &ReportData) -> BTreeMap<String, String> {
    let short = |c: &Completion| Digest::of_bytes(c.prompt.as_bytes()).short();
    report.completions.iter().map(|c| (c.prompt_id.clone(), short(c))).collect()
}

fn curves(log: &[TrainStep]) -> Vec<Curve> {
    let mut runs: Vec<(&str, u64)> = Vec::new();
    for row in log {
        if !runs.contains(&(&row.variant, row.seed)) {
            runs.push((&row.variant, row.seed));
        }
    }
    let curve = |(variant, seed): (&str, u64)| {
        let rows: Vec<&TrainStep> = log.iter().filter(|r| r.variant == variant && r.seed == seed).collect();
        let kept: Vec<&&TrainStep> = rows
            .iter()
            .enumerate()
            .filter(|(i, r)| *i == 0 || *i + 1 == rows.len() || r.step.is_multiple_of(STRIDE))
            .map(|(_, r)| r)
            .collect();
        Curve {
            variant: variant.to_owned(),
            seed,
            steps: kept.iter().map(|r| r.step).collect(),
            loss: kept.iter().map(|r| r.loss).collect(),
            margins: kept.iter().map(|r| r.rewards_margins).collect(),
        }
    };
    runs.into_iter().map(curve).collect()
}

/// What `new` changes in `old`, a line each; empty when they say the same.
pub fn diff(old: &Golden, new: &Golden) -> Vec<String> {
    let mut lines = Vec::new();
    let mut changed = |name: &str, old: &str, new: &str| {
        if old != new {
            lines.push(format!("{name}: {old} → {new}"));
        }
    };
    changed("suite", &old.suite, &new.suite);
    changed("suite digest", &old.suite_digest.short(), &new.suite_digest.short());
    changed("numerics", old.numerics.name(), new.numerics.name());
    changed("reason", &old.reason, &new.reason);
    changed("deciding judge", &old.judge, &new.judge);
    let by = |golden: &Golden| golden.labels.clone().unwrap_or_else(|| "nobody".to_owned());
    changed("labels by", &by(old), &by(new));
    changed("level", &old.level.to_string(), &new.level.to_string());
    let shorten = |cells: &BTreeMap<String, Digest>| cells.iter().map(|(k, v)| (k.clone(), v.short())).collect();
    lines.extend(diff_maps("cell", &shorten(&old.cells), &shorten(&new.cells)));
    let chains: std::collections::BTreeSet<&String> = old.chains.keys().chain(new.chains.keys()).collect();
    lines.extend(chains.into_iter().filter_map(|name| diff_chains(name, old.chains.get(name), new.chains.get(name))));
    let describe = |golden: &Golden| {
        let row =
            |v: &GoldenVariant| format!("{:?} at checkpoint {}, win rate {}", v.answer, v.checkpoint, v.shown()).to_lowercase();
        golden.variants.iter().map(|v| (v.name.clone(), row(v))).collect()
    };
    lines.extend(diff_maps("variant", &describe(old), &describe(new)));
    let last = |golden: &Golden| {
        let row = |c: &Curve| {
            let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
            let steps = c.steps.last().copied().unwrap_or_default();
            let margins: Vec<f64> = c.margins.iter().flatten().copied().collect();
            format!("loss {:.6}, margins {:.6} at step {steps}", last(&c.loss), last(&margins))
        };
        golden.curves.iter().map(|c| (format!("{} seed {}", c.variant, c.seed), row(c))).collect()
    };
    lines.extend(diff_maps("curve", &last(old), &last(new)));
    let named = |golden: &Golden| golden.failures.iter().map(|f| (f.clone(), "fails".to_owned())).collect();
    lines.extend(diff_maps("finding", &named(old), &named(new)));
    if old.prompts != new.prompts {
        lines.push(format!("evaluation prompts: {} → {}, texts differ", old.prompts.len(), new.prompts.len()));
    }
    if lines.is_empty() && old != new {
        lines.push("only preferences of single prompts or inner points of curves differ".to_owned());
    }
    lines
}

fn diff_chains(name: &str, old: Option<&Abridged>, new: Option<&Abridged>) -> Option<String> {
    match (old, new) {
        (Some(old), Some(new)) => {
            let step = old.first_difference(new)?;
            Some(format!("chain {name}: {} → {} steps, other bits from step {step}", old.steps(), new.steps()))
        }
        (Some(old), None) => Some(format!("chain {name}: {} steps → gone", old.steps())),
        (None, new) => new.map(|new| format!("chain {name}: new, {} steps", new.steps())),
    }
}

fn diff_maps(kind: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let line = |name: &String| match (old.get(name), new.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("{kind} {name}: {a} → {b}")),
        (Some(a), None) => Some(format!("{kind} {name}: {a} → gone")),
        (None, Some(b)) => Some(format!("{kind} {name}: new, {b}")),
        (None, None) => None,
    };
    names.into_iter().filter_map(line).collect()
}

/// A golden file for people.
pub fn describe(golden: &Golden) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let _ = writeln!(text, "suite    {} ({})", golden.suite, golden.suite_digest.short());
    let _ = writeln!(text, "reason   {}", golden.reason);
    let corrected = golden.labels.as_ref().map_or_else(String::new, |labels| format!(", corrected by labels of {labels}"));
    let _ = writeln!(text, "judge    {}{corrected}", golden.judge);
    let (cells, chains, curves) = (golden.cells.len(), golden.chains.len(), golden.curves.len());
    let _ = writeln!(text, "bits     {cells} cells, {chains} digest chains, {curves} training curves");
    for v in &golden.variants {
        let _ = writeln!(
            text,
            "variant  {} at step {}: win rate {:.3} [{:.3}, {:.3}] over {} prompts",
            v.name,
            v.checkpoint,
            v.win_rate,
            v.lower,
            v.upper,
            v.preferences.len()
        );
    }
    for failure in &golden.failures {
        let _ = writeln!(text, "accepted failure: {failure}");
    }
    text
}
