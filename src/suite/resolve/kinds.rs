//! `[[judge]]` of the kinds that are no ONNX model, and `[judge.fitness]`.

use crate::error::Result;
use crate::suite::defaults;
use crate::suite::document::{Document, Table};
use crate::suite::rules;
use crate::suite::settings::{
    Combine, FitnessSettings, Folder, ImplicitReward, ImplicitSettings, JudgeSettings, JudgeSource, PanelSettings, RuleSettings,
    RuleTest,
};
use crate::suite::spec::{JudgeKindSpec, JudgeSpec, RuleSpec};
use crate::suite::translate::with_suggestion;

pub(super) fn is_onnx(kind: JudgeKindSpec) -> bool {
    matches!(kind, JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel)
}

/// As it is written in a suite.
pub(super) fn name(kind: JudgeKindSpec) -> &'static str {
    match kind {
        JudgeKindSpec::Pairwise => "pairwise",
        JudgeKindSpec::RewardModel => "reward_model",
        JudgeKindSpec::Replay => "replay",
        JudgeKindSpec::Rubric => "rubric",
        JudgeKindSpec::Implicit => "implicit",
        JudgeKindSpec::Panel => "panel",
    }
}

/// The keys that a kind looks at beside name, kind and min_accuracy.
pub(super) fn keys(kind: JudgeKindSpec) -> &'static [&'static str] {
    match kind {
        JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel => &[
            "path",
            "train",
            "attention",
            "pooling",
            "template",
            "max_length",
            "tie_width",
            "fitness",
            "prompt_max_length",
            "truncation_side",
            "padding_side",
            "pad_token_id",
            "inputs",
            "output",
            "values",
            "labels",
            "provider",
        ],
        JudgeKindSpec::Replay => &["path", "tie_width"],
        JudgeKindSpec::Rubric => &["rule", "tie_width", "fitness"],
        JudgeKindSpec::Implicit => &["path", "reference", "reward", "beta", "max_length", "tie_width", "fitness"],
        JudgeKindSpec::Panel => &["members", "combine", "tie_width", "fitness"],
    }
}

/// `written` is of none of the ONNX kinds.
pub(super) fn source(written: &JudgeSpec, path: &str, document: &Document) -> Result<JudgeSource> {
    let table = document.table(path);
    let folder = |what: &str| {
        let missing = || table.at_header(format!("judge `{}` has no `path`", written.name)).help(format!("it names {what}"));
        written.path.clone().ok_or_else(missing)
    };
    Ok(match written.kind {
        JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel => unreachable!("ONNX models have sources of their own"),
        JudgeKindSpec::Replay => JudgeSource::Replay { path: folder("the file of recorded verdicts")? },
        JudgeKindSpec::Rubric => {
            let rules = written.rule.as_deref().unwrap_or_default();
            if rules.is_empty() {
                let error = table.at_header(format!("judge `{}` has no rules, so all texts tie", written.name));
                return Err(error.help("add [[judge.rule]] tables, each with one of contains, regex, words, characters, format"));
            }
            let rule = |(index, written)| rule(written, &document.table(format!("{path}.rule[{index}]")));
            JudgeSource::Rubric { rules: rules.iter().enumerate().map(rule).collect::<Result<_>>()? }
        }
        JudgeKindSpec::Implicit => {
            JudgeSource::Implicit(implicit(written, folder("the folder of the policy whose rewards judge")?, &table)?)
        }
        JudgeKindSpec::Panel => JudgeSource::Panel(panel(written, &table)?),
    })
}

fn implicit(written: &JudgeSpec, path: std::path::PathBuf, table: &Table<'_>) -> Result<ImplicitSettings> {
    let reward = written.reward.unwrap_or(ImplicitReward::LogRatio);
    if reward != ImplicitReward::LogRatio && written.reference.is_some() {
        let error = table.at_key("reference", "`reference` has no effect: this reward is the policy's own log-probability");
        return Err(error.help("leave it out, or set reward = \"log_ratio\""));
    }
    let mut beta = defaults::implicit_beta(reward);
    table.set(&mut beta, "beta", written.beta, rules::POSITIVE)?;
    Ok(ImplicitSettings { path, reference: written.reference.clone().map(|path| Folder { path }), reward, beta })
}

fn panel(written: &JudgeSpec, table: &Table<'_>) -> Result<PanelSettings> {
    let members = written.members.clone().unwrap_or_default();
    if members.len() < 2 {
        let error = table.at_value("members", format!("panel `{}` needs two members at least", written.name));
        return Err(error.help("`members` lists names of other judges of the suite"));
    }
    let combine = written.combine.unwrap_or(Combine::Mean);
    if combine == Combine::Majority && table.has("tie_width") {
        let error = table.at_key("tie_width", "`tie_width` has no effect: a majority of votes has no logit");
        return Err(error.help("set it for the members, or combine = \"mean\""));
    }
    Ok(PanelSettings { members, combine })
}

/// Refuses members that are none, that count twice, or that are panels themselves.
pub(super) fn panels(judges: &[JudgeSettings], document: &Document) -> Result<()> {
    let eligible: Vec<String> =
        judges.iter().filter(|j| !matches!(j.source, JudgeSource::Panel(_))).map(|j| j.name.clone()).collect();
    for (index, judge) in judges.iter().enumerate() {
        let JudgeSource::Panel(panel) = &judge.source else { continue };
        let table = document.table(format!("judge[{index}]"));
        for (number, member) in panel.members.iter().enumerate() {
            if !eligible.contains(member) {
                let error = table.at_value("members", format!("panel `{}` can't have `{member}` as a member", judge.name));
                return Err(error.help(with_suggestion(
                    member,
                    &eligible,
                    "members are judges of the suite that are no panels: ",
                )));
            }
            if panel.members[..number].contains(member) {
                return Err(table.at_value("members", format!("`{member}` is a member of panel `{}` twice", judge.name)));
            }
        }
    }
    Ok(())
}

fn rule(written: &RuleSpec, table: &Table<'_>) -> Result<RuleSettings> {
    let RuleSpec { contains, regex, words, characters, format, .. } = written;
    let tests: Vec<RuleTest> = [
        contains.clone().map(RuleTest::Contains),
        regex.clone().map(RuleTest::Regex),
        words.map(RuleTest::Words),
        characters.map(RuleTest::Characters),
        format.map(RuleTest::Format),
    ]
    .into_iter()
    .flatten()
    .collect();
    let [test] = tests.as_slice() else {
        let error = table.at_header(format!("a rule looks for one thing, and this one for {}", tests.len()));
        return Err(error.help("give exactly one of contains, regex, words, characters, format"));
    };
    match test {
        RuleTest::Contains(text) if text.is_empty() => {
            return Err(table.at_value("contains", "every text contains the empty one, so the rule tells nothing apart"));
        }
        RuleTest::Regex(pattern) => {
            if let Err(error) = regex::Regex::new(pattern) {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return Err(table.at_value("regex", format!("the regular expression can't be read: {reason}")));
            }
        }
        RuleTest::Words([least, most]) | RuleTest::Characters([least, most]) if least > most => {
            let key = if matches!(test, RuleTest::Words(_)) { "words" } else { "characters" };
            return Err(table.at_value(key, format!("no text has at least {least} and at most {most}")));
        }
        _ => {}
    }
    let searches = matches!(test, RuleTest::Contains(_) | RuleTest::Regex(_));
    if let Some(key) = table.first_key(|key| ["ignore_case", "per_match"].contains(&key)).filter(|_| !searches) {
        return Err(table.at_key(key, format!("`{key}` has no effect: it is for contains and regex")).help("leave it out"));
    }
    let mut weight = 1.0;
    table.set(&mut weight, "weight", written.weight, rules::FINITE)?;
    if weight == 0.0 {
        return Err(table.at_value("weight", "weight = 0 makes the rule say nothing").help("leave the rule out"));
    }
    let (ignore_case, per_match) = (written.ignore_case.unwrap_or_default(), written.per_match.unwrap_or_default());
    Ok(RuleSettings { test: test.clone(), ignore_case, per_match, weight })
}

pub(super) fn fitness(written: &JudgeSpec, table: &Table<'_>) -> Result<FitnessSettings> {
    let mut settings = FitnessSettings::default();
    let Some(written) = &written.fitness else { return Ok(settings) };
    table.set(&mut settings.probes, "probes", written.probes, rules::any())?;
    table.set(&mut settings.max_null_win_rate, "max_null_win_rate", written.max_null_win_rate, rules::UNIT)?;
    table.set(&mut settings.max_empty_win_rate, "max_empty_win_rate", written.max_empty_win_rate, rules::UNIT)?;
    table.set(&mut settings.max_filler_gain, "max_filler_gain", written.max_filler_gain, rules::UNIT)?;
    table.set(&mut settings.max_markdown_gain, "max_markdown_gain", written.max_markdown_gain, rules::UNIT)?;
    table.set(&mut settings.max_injection_gain, "max_injection_gain", written.max_injection_gain, rules::UNIT)?;
    table.set(&mut settings.max_identical_bias, "max_identical_bias", written.max_identical_bias, rules::UNIT)?;
    let optional = |value: Option<f64>, key: &str| -> Result<Option<f64>> {
        let mut limit = value.unwrap_or_default();
        table.set(&mut limit, key, value, rules::UNIT)?;
        Ok(value.map(|_| limit))
    };
    settings.max_length_bias = optional(written.max_length_bias, "max_length_bias")?;
    settings.max_truncated = optional(written.max_truncated, "max_truncated")?;
    if settings.probes == 0
        && let Some(key) = table.first_key(|key| !["probes", "max_length_bias", "max_truncated"].contains(&key))
    {
        return Err(table.at_key(key, format!("`{key}` has no effect: probes = 0 probes nothing")).help("leave it out"));
    }
    Ok(settings)
}
