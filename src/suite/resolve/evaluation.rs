//! The keys that say when held-out examples are measured and what follows from it.

use crate::error::Result;
use crate::suite::defaults::Purpose;
use crate::suite::document::Table;
use crate::suite::rules;
use crate::suite::settings::{EvaluationSettings, TrainSettings};
use crate::suite::spec::TrainSpec;

/// What evaluations measure; objectives may lack some of them, which the first evaluation then says.
const METRICS: [&str; 18] = [
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "rewards/ties",
    "logps/chosen",
    "logps/rejected",
    "logps/chosen_fell",
    "kl/chosen",
    "kl/rejected",
    "kl",
    "nll_loss",
    "log_odds_ratio",
    "log_odds_chosen",
    "logits/chosen",
    "logits/rejected",
    "entropy",
];

/// Overwrites `settings` with what `table` writes.
pub(super) fn overlay(settings: &mut EvaluationSettings, written: &TrainSpec, table: &Table<'_>) -> Result<()> {
    let s = settings;
    table.set_or_none(&mut s.save_total_limit, "save_total_limit", written.save_total_limit, rules::AT_LEAST_ONE)?;
    table.set_or_none(&mut s.eval_steps, "eval_steps", written.eval_steps, rules::STEPS)?;
    let patience = written.early_stopping_patience;
    table.set_or_none(&mut s.early_stopping_patience, "early_stopping_patience", patience, rules::STEPS)?;
    let threshold = written.early_stopping_threshold;
    table.set(&mut s.early_stopping_threshold, "early_stopping_threshold", threshold, rules::NOT_NEGATIVE)?;
    if let Some(name) = &written.metric_for_best_model {
        let name = name.strip_prefix("eval_").unwrap_or(name);
        if !METRICS.contains(&name) {
            let error = table.at_value("metric_for_best_model", format!("evaluations measure no `{name}`"));
            return Err(error.help(format!("they measure {}", METRICS.join(", "))));
        }
        s.metric_for_best_model = Some(name.to_owned());
    }
    if let Some(greater) = written.greater_is_better {
        s.greater_is_better = Some(greater);
    }
    table.set(&mut s.load_best_model_at_end, "load_best_model_at_end", written.load_best_model_at_end, rules::any())
}

/// The keys that would change nothing, each with the reason.
pub(super) fn ineffective(settings: &TrainSettings, purpose: Purpose) -> Vec<(&'static str, String)> {
    let e = &settings.evaluation;
    let mut keys = Vec::new();
    let mut add = |names: &[&'static str], why: &str| keys.extend(names.iter().map(|&name| (name, why.to_owned())));
    let following = [
        "early_stopping_patience",
        "load_best_model_at_end",
        "early_stopping_threshold",
        "metric_for_best_model",
        "greater_is_better",
    ];
    match purpose {
        Purpose::Judge => {
            let why = "a judge is measured on held-out pairs when it is finished";
            add(&["eval_steps"], why);
            add(&following, why);
        }
        Purpose::Preference | Purpose::Sft if e.eval_steps.is_none() => {
            add(&following, "without `eval_steps` nothing is measured");
        }
        Purpose::Preference | Purpose::Sft => {}
    }
    if !e.selects() {
        let why = "neither `early_stopping_patience` nor `load_best_model_at_end` asks for the best evaluation";
        add(&["metric_for_best_model", "greater_is_better"], why);
    }
    if e.early_stopping_patience.is_none() {
        add(&["early_stopping_threshold"], "there is no `early_stopping_patience`");
    }
    match purpose {
        Purpose::Preference if e.selects() => {
            let why = "with `early_stopping_patience` or `load_best_model_at_end` the weights that training ends with are the only \
                       checkpoint: seeds may end at different steps, and checkpoints are compared by their steps";
            add(&["save_steps", "save_total_limit"], why);
        }
        Purpose::Preference if settings.save_steps.is_none() => {
            add(&["save_total_limit"], "without `save_steps` there is one checkpoint, at the end");
        }
        Purpose::Preference => {}
        Purpose::Sft | Purpose::Judge => add(&["save_total_limit"], "only what this training ends with is kept"),
    }
    keys
}
