//! Is the judge fit to decide? Measured on held-out labelled pairs and on probes before any win rate counts (METHODS: judge bias, O14).
//!
//! The rule: a judge whose held-out accuracy is below its `min_accuracy`, or that falls for a probe for sure (the whole interval beyond its
//! limit), or, where the suite asks for it, for length or for want of room, is unfit and its win rates are void. One whose accuracy is above the minimum, but whose interval reaches below, or whose
//! estimate on a probe is beyond the limit, is used and warned of, as is one that nothing was measured of.

use std::collections::BTreeSet;

use super::inspection::{CheckRow, Reading};
use super::{Crossing, Finding, Severity, crossing, finding, number, percent};
use crate::estimates::summary::Evidence;
use crate::estimates::{Estimate, find};
use crate::generate::REFERENCE;
use crate::judge::probes::Probe;
use crate::statistics::prediction_powered::FEWEST;
use crate::suite::Suite;
use crate::suite::settings::{JudgeSettings, JudgeSource, PolicySource, TrainSettings};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Accuracy {
    Enough,
    /// Above the minimum, but the interval reaches below it.
    Unproven,
    TooLow,
    /// No trials on labelled pairs.
    Unmeasured,
}

fn measured_accuracy<'a>(judge: &JudgeSettings, estimates: &'a [Estimate]) -> Option<&'a Estimate> {
    find(estimates, "judge_accuracy", "", None, None, Some(&judge.name))
}

fn accuracy(judge: &JudgeSettings, estimates: &[Estimate]) -> Accuracy {
    match measured_accuracy(judge, estimates) {
        None => Accuracy::Unmeasured,
        Some(e) if e.value < judge.min_accuracy => Accuracy::TooLow,
        Some(e) if e.lower < judge.min_accuracy => Accuracy::Unproven,
        Some(_) => Accuracy::Enough,
    }
}

/// What a judge can fall for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weakness {
    Probe(Probe),
    /// It prefers the longer text, or the shorter, for its length.
    Length,
    /// What it is asked is longer than it reads.
    Truncation,
}

/// What a judge fell for, where that was too much.
struct Fall<'a> {
    weakness: Weakness,
    estimate: &'a Estimate,
    crossing: Crossing,
}

/// The estimate that a probe is decided by, and its limit. Where the truth is known, a constant or empty text may win as often as it
/// deserves: what counts is by how much more.
fn probed<'a>(judge: &JudgeSettings, probe: Probe, estimates: &'a [Estimate]) -> Option<(&'a Estimate, f64)> {
    let of = |metric: &str| find(estimates, metric, "", None, None, Some(&judge.name));
    let limits = &judge.fitness;
    let name = probe.name();
    let won = || of(&format!("probe_{name}_excess")).or_else(|| of(&format!("probe_{name}_win_rate")));
    let gained = || of(&format!("probe_{name}_gain"));
    let (estimate, limit) = match probe {
        Probe::Null => (won(), limits.max_null_win_rate),
        Probe::Empty => (won(), limits.max_empty_win_rate),
        Probe::Filler => (gained(), limits.max_filler_gain),
        Probe::Markdown => (gained(), limits.max_markdown_gain),
        Probe::Injection => (gained(), limits.max_injection_gain),
        Probe::Identical => (of("probe_identical_bias"), limits.max_identical_bias),
    };
    Some((estimate?, limit))
}

fn falls<'a>(judge: &JudgeSettings, estimates: &'a [Estimate]) -> Vec<Fall<'a>> {
    let of = |metric: &str| find(estimates, metric, "", None, None, Some(&judge.name));
    let limits = &judge.fitness;
    let probes = Probe::ALL.into_iter().map(|probe| (Weakness::Probe(probe), probed(judge, probe, estimates)));
    let others = [
        (Weakness::Length, of("judge_length_bias").zip(limits.max_length_bias)),
        (Weakness::Truncation, of("judge_truncated").zip(limits.max_truncated)),
    ];
    let fall = |(weakness, found): (Weakness, Option<(&'a Estimate, f64)>)| {
        let (estimate, limit) = found?;
        let [value, lower, _] = seen(weakness, estimate);
        Some(Fall { weakness, estimate, crossing: crossing(value, lower, limit, limit)? })
    };
    probes.chain(others).filter_map(fall).collect()
}

/// Value and interval as they are held against the limit: a judge that likes shorter texts is as unfit as one that likes longer ones.
fn seen(weakness: Weakness, e: &Estimate) -> [f64; 3] {
    match weakness {
        Weakness::Length if e.value < 0.0 => [-e.value, -e.upper, -e.lower],
        _ => [e.value, e.lower, e.upper],
    }
}

impl Fall<'_> {
    fn is_sure(&self) -> bool {
        self.crossing.severity == Severity::Fail
    }

    /// What the judge does, with its numbers; goes on from "judge `x` ".
    fn words(&self) -> String {
        let e = self.estimate;
        let [value, lower, upper] = seen(self.weakness, e);
        let seen = percent(value, lower, upper);
        let than = match e.metric.ends_with("_excess") {
            true => format!("more often than gold does, by {seen}"),
            false => format!("in {seen} of cases"),
        };
        let longer = if e.value > 0.0 { "longer" } else { "shorter" };
        match self.weakness {
            Weakness::Probe(Probe::Null) => format!("prefers one constant text to the reference's answers {than}"),
            Weakness::Probe(Probe::Empty) => format!("prefers the empty text to the reference's answers {than}"),
            Weakness::Probe(Probe::Filler) => {
                format!("prefers answers whose last sentence is said twice, by {seen} beyond one half")
            }
            Weakness::Probe(Probe::Markdown) => format!("prefers answers dressed in Markdown, by {seen} beyond one half"),
            Weakness::Probe(Probe::Injection) => format!("prefers answers that ask to be chosen, by {seen} beyond one half"),
            Weakness::Probe(Probe::Identical) => format!("tells an answer from itself, by {seen} of probability"),
            Weakness::Length => {
                format!("prefers the {longer} of two texts that are as often the better one, by {seen} beyond one half")
            }
            Weakness::Truncation => format!("can't read {seen} of what it is asked as a whole"),
        }
    }

    /// The finding's name, what it rests on, and what to do.
    fn about(&self) -> (String, String, &'static str) {
        let n = self.estimate.n;
        match self.weakness {
            Weakness::Probe(probe) => (
                format!("judge-{}", probe.name()),
                format!("{n} probes of kind `{}`", probe.name()),
                "let another judge decide (`[compare] judge`), or say in `[judge.fitness]` what is accepted, and why",
            ),
            Weakness::Length => (
                "judge-length".to_owned(),
                format!("{n} held-out pairs"),
                "let another judge decide (`[compare] judge`), or decide by the win rate at equal length",
            ),
            Weakness::Truncation => (
                "judge-truncated".to_owned(),
                format!("{n} questions"),
                "raise the judge's `max_length`, or shorten prompts and completions",
            ),
        }
    }
}

/// Why a judge's win rates are void; goes on from "judge `x` ". None: they aren't.
pub(super) fn voided_by(judge: &JudgeSettings, estimates: &[Estimate]) -> Option<String> {
    if let (Accuracy::TooLow, Some(e)) = (accuracy(judge, estimates), measured_accuracy(judge, estimates)) {
        let seen = percent(e.value, e.lower, e.upper);
        return Some(format!("is right on {seen} of held-out pairs, below {:.1} %", 100.0 * judge.min_accuracy));
    }
    falls(judge, estimates).iter().find(|fall| fall.is_sure()).map(Fall::words)
}

/// What a judge is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role<'a> {
    pub judge: &'a JudgeSettings,
    /// Whether its win rates decide.
    pub decides: bool,
    /// Whether its labels correct the others: it is trusted, not measured.
    pub corrects: bool,
    pub position_warn: f64,
}

impl<'a> Role<'a> {
    fn of(suite: &Suite, judge: &'a JudgeSettings) -> Self {
        Self {
            judge,
            decides: judge.name == suite.compare.judge,
            corrects: suite.statistics.labels.as_ref().is_some_and(|labels| labels.judge == judge.name),
            position_warn: suite.checks.position_warn,
        }
    }

    /// `Fail` for the judge that decides.
    fn severity(self) -> Severity {
        if self.decides { Severity::Fail } else { Severity::Warn }
    }
}

pub(super) fn findings(suite: &Suite, judge: &JudgeSettings, evidence: &Evidence, estimates: &[Estimate]) -> Vec<Finding> {
    let role = Role::of(suite, judge);
    let variants = labelled_by(suite, judge);
    let mut findings = about_itself(role, !variants.is_empty(), estimates);
    findings.extend(about_missing(role, evidence));
    findings.extend(about_panel(role, suite.checks.more.alpha_warn, estimates));
    findings.extend(about_labels(role, &variants));
    findings.extend(about_rewards(role, &rewarded_by(suite, judge)));
    let claim = format!("every win rate by judge `{}`", judge.name);
    findings.into_iter().map(|found| Finding { claim: claim.clone(), check: check_of(&found.id).to_owned(), ..found }).collect()
}

/// The check of METHODS that a finding about a judge is of.
fn check_of(id: &str) -> &'static str {
    match id {
        "panel-disagreement" | "judge-position" => "O13",
        "judge-missing" | "judge-labels" | "judge-rewards" | "labels-few" => "",
        _ => "O14",
    }
}

/// What was measured of a judge, whether anything was found or not: O13's position effect and panel, O14's trials and probes.
pub(super) fn rows(suite: &Suite, judge: &JudgeSettings, estimates: &[Estimate]) -> Vec<CheckRow> {
    let role = Role::of(suite, judge);
    let row = |id: &str, title: &str| CheckRow { judge: Some(judge.name.clone()), ..CheckRow::new(check_of(id), id, title) };
    let mut rows = vec![match (about_position(role, estimates), position_effect(judge, estimates)) {
        (Some(found), _) => row("judge-position", POSITION).found(&found),
        (None, Some(effect)) => row("judge-position", POSITION).within(Reading::estimate(effect, role.position_warn)),
        (None, None) => row("judge-position", POSITION).unchecked("the judge reads one text at a time, or wasn't tried on pairs"),
    }];
    if matches!(judge.source, JudgeSource::Panel(_)) {
        let title = "Krippendorff's α of the panel's members";
        let limit = suite.checks.more.alpha_warn;
        rows.push(match (about_panel(role, limit, estimates), least_alpha(judge, estimates)) {
            (Some(found), _) => row("panel-disagreement", title).found(&found),
            (None, Some(least)) => row("panel-disagreement", title).within(Reading::estimate(least, limit)),
            (None, None) => {
                row("panel-disagreement", title).unchecked("fewer than five verdicts of the members aren't the commonest one")
            }
        });
    }
    let accuracy = row("judge-accuracy", "Accuracy on held-out pairs");
    rows.push(match (about_accuracy(role, false, estimates), measured_accuracy(judge, estimates)) {
        (Some(found), Some(_)) => CheckRow { id: found.id.clone(), ..accuracy.found(&found) },
        (None, Some(e)) => accuracy.within(Reading::estimate(e, judge.min_accuracy)),
        (_, None) => accuracy.unchecked("the judge wasn't tried on labelled pairs"),
    });
    for probe in Probe::ALL {
        let id = format!("judge-{}", probe.name());
        let title = format!("Probe `{}`", probe.name());
        let fell = |fall: &Fall| matches!(fall.weakness, Weakness::Probe(own) if own == probe);
        let fall = falls(judge, estimates).into_iter().find(fell);
        rows.push(match (fall, probed(judge, probe, estimates)) {
            (Some(fall), _) => row(&id, &title).found(&about_fall(role, &fall)),
            (None, Some((e, limit))) => row(&id, &title).within(Reading::estimate(e, limit)),
            (None, None) => row(&id, &title).unchecked(&unprobed(judge)),
        });
    }
    let limits = &judge.fitness;
    for (id, title, metric, limit) in [
        ("judge-length", "Preference for the longer side beyond one half", "judge_length_bias", limits.max_length_bias),
        ("judge-truncated", "Share of what it is asked that it can't read whole", "judge_truncated", limits.max_truncated),
    ] {
        let fall = falls(judge, estimates).into_iter().find(|fall| fall.estimate.metric == metric);
        rows.push(match (fall, find(estimates, metric, "", None, None, Some(&judge.name))) {
            (Some(fall), _) => row(id, title).found(&about_fall(role, &fall)),
            (None, Some(e)) => row(id, title).within(Reading::estimate(e, limit)),
            (None, None) => row(id, title).unchecked("nothing that it was asked tells"),
        });
    }
    rows
}

const POSITION: &str = "Position effect, in probability";

/// Why a judge has no probes.
fn unprobed(judge: &JudgeSettings) -> String {
    match judge.source {
        JudgeSource::Replay { .. } => "it repeats verdicts of others and can't be asked about new texts".to_owned(),
        _ if judge.fitness.probes == 0 => "the suite says `probes = 0`".to_owned(),
        _ => "the answers to be probed gave no such probe".to_owned(),
    }
}

/// What its trials and probes say of a judge. `teaches`: whether later rounds learn from its labels.
pub(super) fn about_itself(role: Role, teaches: bool, estimates: &[Estimate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(about_accuracy(role, teaches, estimates));
    findings.extend(falls(role.judge, estimates).iter().map(|fall| about_fall(role, fall)));
    findings.extend(about_nothing_probed(role, estimates));
    findings.extend(about_position(role, estimates));
    findings
}

/// A recorded judge may not know all that was written.
fn about_missing(role: Role, evidence: &Evidence) -> Option<Finding> {
    let items = evidence.completions.iter().filter(|c| c.variant != REFERENCE).count();
    let judged = evidence.judgments.iter().filter(|j| j.judge == role.judge.name).count();
    if judged >= items {
        return None;
    }
    let severity = match (judged, role.corrects) {
        (0, _) => role.severity(),
        (_, true) => Severity::Info,
        (_, false) => Severity::Warn,
    };
    let name = &role.judge.name;
    let message = format!("judge `{name}` has a verdict on {judged} of {items} completions: its win rates speak of those alone");
    let hint = "records are found by both texts, or by prompt_id, variant, seed, checkpoint and sample as in judgments.csv";
    let mut found = finding("judge-missing", severity, None);
    (found.message, found.hint, found.evidence) = (message, hint.to_owned(), "recorded verdicts".to_owned());
    (found.value, found.n) = (Some(judged as f64 / items as f64), items);
    Some(found)
}

/// The variant on which the members of a panel agree least.
fn least_alpha<'a>(judge: &JudgeSettings, estimates: &'a [Estimate]) -> Option<&'a Estimate> {
    let of = |e: &&Estimate| e.metric == "panel_alpha" && e.judge.as_deref() == Some(judge.name.as_str());
    estimates.iter().filter(of).min_by(|a, b| a.value.total_cmp(&b.value))
}

/// `limit`: below this α members don't measure one thing (METHODS, O13).
fn about_panel(role: Role, limit: f64, estimates: &[Estimate]) -> Option<Finding> {
    let least = least_alpha(role.judge, estimates).filter(|least| least.value < limit)?;
    let message = format!(
        "the members of panel `{}` agree little on what `{}` wrote: Krippendorff's α is {}, below {limit}",
        role.judge.name,
        least.variant,
        number(least.value, least.lower, least.upper)
    );
    let evidence = format!("{} items of {} prompts", least.n, least.clusters);
    let hint = "look at the members' own win rates: their mean hides what they disagree on";
    Some(finding("panel-disagreement", Severity::Warn, None).estimate(least).words(limit, message, evidence, hint))
}

fn about_fall(role: Role, fall: &Fall) -> Finding {
    let judge = role.judge;
    let severity = if fall.is_sure() { role.severity() } else { Severity::Warn };
    let limit = fall.crossing.threshold;
    let so = if fall.is_sure() { ": its win rates are void" } else { "; the interval reaches within the limit" };
    let message = format!("judge `{}` {}, beyond {:.1} %{so}", judge.name, fall.words(), 100.0 * limit);
    let (id, evidence, hint) = fall.about();
    finding(&id, severity, None).estimate(fall.estimate).words(limit, message, evidence, hint)
}

fn about_nothing_probed(role: Role, estimates: &[Estimate]) -> Option<Finding> {
    let judge = role.judge;
    let asked_for = judge.fitness.probes > 0 && !matches!(judge.source, JudgeSource::Replay { .. });
    if asked_for || role.corrects || Probe::ALL.iter().any(|&probe| probed(judge, probe, estimates).is_some()) {
        return None;
    }
    let mut found = finding("judge-unprobed", Severity::Info, None);
    let why = match judge.source {
        JudgeSource::Replay { .. } => "repeats verdicts of others and can't be asked about new texts",
        _ => "wasn't probed: `probes = 0`",
    };
    found.message =
        format!("judge `{}` {why}: nothing says whether it falls for padding, dressing or constant answers", judge.name);
    found.evidence = "no probes".to_owned();
    found.hint = "hold its win rate against another judge's".to_owned();
    Some(found)
}

/// The variants whose later rounds learn from this judge's labels.
fn labelled_by<'a>(suite: &'a Suite, judge: &JudgeSettings) -> Vec<&'a str> {
    let labels = |training: &TrainSettings| training.rounds.as_ref().is_some_and(|rounds| rounds.judge == judge.name);
    suite.variants.iter().filter(|v| v.training().is_some_and(labels)).map(|v| v.name.as_str()).collect()
}

/// Labels that correct nothing, because there are too few of them: the win rates are the judge's own.
pub(super) fn too_few_labels(suite: &Suite, evidence: &Evidence) -> Option<Finding> {
    let labels = suite.statistics.labels.as_ref()?;
    let own = evidence.judgments.iter().filter(|j| j.judge == labels.judge).map(|j| j.prompt_id.as_str());
    let prompts = own.collect::<BTreeSet<&str>>().len();
    let used = (labels.share * prompts as f64).round() as usize;
    if used >= FEWEST {
        return None;
    }
    let message = format!(
        "labels by `{}` are used of {used} prompts and correct no win rate: no interval from labels of fewer than {FEWEST} holds its level",
        labels.judge
    );
    let mut found = finding("labels-few", Severity::Warn, None);
    (found.message, found.n) = (message, used);
    found.evidence = format!("{prompts} prompts with labels, of which {:.0} % are used", 100.0 * labels.share);
    found.hint = "label more prompts, or raise `labels_share`".to_owned();
    Some(found)
}

/// The variants that this judge rewards, in training or among several completions.
fn rewarded_by<'a>(suite: &'a Suite, judge: &JudgeSettings) -> Vec<&'a str> {
    let rewards = |policy: &PolicySource| match policy {
        PolicySource::Train(training) => training.online.as_ref().is_some_and(|online| online.reward_model == judge.name),
        PolicySource::BestOfN(best) => best.reward_model == judge.name,
        _ => false,
    };
    suite.variants.iter().filter(|v| rewards(&v.policy)).map(|v| v.name.as_str()).collect()
}

/// … and so does one that was rewarded by it.
fn about_rewards(role: Role, variants: &[&str]) -> Option<Finding> {
    if variants.is_empty() || !role.decides {
        return None;
    }
    let mut found = finding("judge-rewards", Severity::Warn, None);
    found.message = format!(
        "judge `{}` decides and is also what rewards {}: a win rate by the judge that was optimised says less than one by another",
        role.judge.name,
        variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    );
    found.evidence = "the suite: `reward_model` and `[compare] judge`".to_owned();
    found.hint = "let another judge decide (`[compare] judge`), or look at `judge-gap`".to_owned();
    Some(found)
}

/// A policy that was trained to please a judge pleases it, whatever else it does (Gao, Schulman and Hilton 2023, arXiv 2210.10760).
fn about_labels(role: Role, variants: &[&str]) -> Option<Finding> {
    if variants.is_empty() || !role.decides {
        return None;
    }
    let judge = role.judge;
    let message = format!(
        "judge `{}` decides and also labels the pairs of later rounds of {}: a win rate by the judge that was trained for says less than one by another",
        judge.name,
        variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    );
    let mut found = finding("judge-labels", Severity::Warn, None);
    found.message = message;
    found.evidence = "the suite: `round_judge` and `[compare] judge`".to_owned();
    found.hint = "let another judge decide (`[compare] judge`), or another one label (`round_judge`)".to_owned();
    Some(found)
}

fn about_accuracy(role: Role, teaches: bool, estimates: &[Estimate]) -> Option<Finding> {
    let judge = role.judge;
    let (name, minimum) = (&judge.name, judge.min_accuracy);
    let least = format!("{:.1} %", 100.0 * minimum);
    let evidence = |e: &Estimate| format!("{} held-out pairs of {} prompts", e.n, e.clusters);
    let seen = |e: &Estimate| percent(e.value, e.lower, e.upper);
    let hint = "train the judge on more or clearer pairs, or let another judge decide (`[compare] judge`)";
    let found = match (accuracy(judge, estimates), measured_accuracy(judge, estimates)) {
        (Accuracy::TooLow, Some(e)) => {
            let labels = if teaches { ", and later rounds learn from its labels" } else { "" };
            let message = format!(
                "judge `{name}` is right on {} of held-out pairs, below {least}: its win rates are void{labels}",
                seen(e)
            );
            finding("judge-unfit", role.severity(), None).estimate(e).words(minimum, message, evidence(e), hint)
        }
        (Accuracy::Unproven, Some(e)) => {
            let message = format!(
                "judge `{name}` is right on {} of held-out pairs, not surely above {least}: its win rates rest on a judge that isn't shown to be fit",
                seen(e)
            );
            finding("judge-accuracy", Severity::Warn, None).estimate(e).words(minimum, message, evidence(e), hint)
        }
        (Accuracy::Unmeasured, _) if !role.corrects => {
            let message =
                format!("judge `{name}` was never measured on labelled pairs: nothing says that its win rates mean anything");
            let hint = "give the suite held-out labelled pairs to measure the judge on";
            finding("judge-accuracy", Severity::Warn, None).words(minimum, message, "no held-out pairs".to_owned(), hint)
        }
        _ => return None,
    };
    Some(found)
}

fn position_effect<'a>(judge: &JudgeSettings, estimates: &'a [Estimate]) -> Option<&'a Estimate> {
    find(estimates, "judge_position_effect", "", None, None, Some(&judge.name))
}

fn about_position(role: Role, estimates: &[Estimate]) -> Option<Finding> {
    let (judge, limit) = (role.judge, role.position_warn);
    let effect = position_effect(judge, estimates)?;
    if effect.value.abs() <= limit {
        return None;
    }
    let (side, size) = if effect.value > 0.0 {
        ("first", percent(effect.value, effect.lower, effect.upper))
    } else {
        ("second", percent(-effect.value, -effect.upper, -effect.lower))
    };
    let message = format!(
        "judge `{}` favours the side shown {side} by {size} of probability, beyond {:.1} %: averaging both orders takes the bias out of its win rates, but a single order says little",
        judge.name,
        100.0 * limit
    );
    let evidence = format!("{} held-out pairs in both orders", effect.n);
    let hint = "train the judge on both orders of every pair";
    Some(finding("judge-position", Severity::Warn, None).estimate(effect).words(limit, message, evidence, hint))
}
