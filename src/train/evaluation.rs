//! Held-out examples, measured while training runs, and what their measurements decide: the best weights and an early end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::task::Task;
use crate::error::{Error, Result};
use crate::suite::settings::EvaluationSettings;

/// All held-out examples after some step. File form: one JSON object a line, `values` flattened into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Finished optimizer steps.
    pub step: u64,
    pub epoch: f64,
    /// `eval_loss` and the task's own metrics under `eval_`, as in TRL.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// Measures all held-out examples after `step`. `together`: examples of a forward pass, which bounds memory.
pub(super) fn evaluate<T: Task>(
    task: &T,
    settings: &EvaluationSettings,
    together: usize,
    step: u64,
    epoch: f64,
) -> Result<Evaluation> {
    let examples: Vec<usize> = (task.examples()..task.examples() + task.held_out()).collect();
    if examples.is_empty() {
        return Err(Error::input("eval_steps asks for evaluations, but there are no held-out examples")
            .help("leave eval_steps out, or hold out more of the data"));
    }
    let outputs: Vec<T::Output> = examples.chunks(together).flat_map(|part| task.forward(part).1).collect();
    let result = task.held_out_loss(&examples, &outputs);
    let mut values = result.metrics;
    values.insert("loss".to_owned(), result.loss);
    if let Some((name, _)) = values.iter().find(|(_, value)| !value.is_finite()) {
        let guilty = result.losses.iter().position(|loss| !loss.is_finite());
        let of = guilty.map_or_else(String::new, |at| format!(" (example {})", task.example_id(examples[at])));
        return Err(Error::unexpected(format!("after step {step} eval_{name} is not finite{of}"))
            .help("lower learning_rate, set max_grad_norm, or look at the held-out examples"));
    }
    let metric = settings.metric();
    if settings.selects() && !values.contains_key(metric) {
        let measured: Vec<&str> = values.keys().map(String::as_str).collect();
        return Err(Error::usage(format!("metric_for_best_model = \"{metric}\" isn't measured in this training"))
            .help(format!("it measures {}", measured.join(", "))));
    }
    Ok(Evaluation { step, epoch, values: values.into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect() })
}

/// What evaluations decide, as transformers' Trainer and its `EarlyStoppingCallback` do. A function of the evaluations so far, so a
/// resumed run needs nothing but them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// The step of the first evaluation that none beats; none: there is no evaluation.
    pub best: Option<u64>,
    /// Whether patience has run out.
    pub ends: bool,
}

pub(super) fn verdict(settings: &EvaluationSettings, evaluations: &[Evaluation]) -> Verdict {
    let name = format!("eval_{}", settings.metric());
    let (mut best, mut patience): (Option<(u64, f64)>, u64) = (None, 0);
    let mut ends = false;
    for evaluation in evaluations.iter().filter(|_| settings.selects()) {
        let value = evaluation.values[&name];
        let better = |than: f64| if settings.greater_is_better() { value > than } else { value < than };
        let beaten = best.is_none_or(|(_, than)| better(than));
        let clearly = best.is_none_or(|(_, than)| better(than) && (value - than).abs() > settings.early_stopping_threshold);
        patience = if clearly { 0 } else { patience + 1 };
        if beaten {
            best = Some((evaluation.step, value));
        }
        ends |= settings.early_stopping_patience.is_some_and(|limit| patience >= limit);
    }
    Verdict { best: best.map(|(step, _)| step), ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `golden/train/early_stopping.py` made the cases with transformers' own Trainer and callback.
    #[test]
    fn the_best_evaluation_and_the_early_end_are_those_of_transformers() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../golden/train/early_stopping.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let settings = EvaluationSettings {
                early_stopping_patience: case["patience"].as_u64(),
                early_stopping_threshold: case["threshold"].as_f64().unwrap(),
                greater_is_better: case["greater_is_better"].as_bool(),
                ..EvaluationSettings::default()
            };
            let row = |(i, value): (usize, &serde_json::Value)| Evaluation {
                step: i as u64 + 1,
                epoch: 0.0,
                values: BTreeMap::from([("eval_loss".to_owned(), value.as_f64().unwrap())]),
            };
            let all: Vec<Evaluation> = case["values"].as_array().unwrap().iter().enumerate().map(row).collect();
            let end = (1..=all.len()).find(|&n| verdict(&settings, &all[..n]).ends);
            assert_eq!(end.map(|n| n as u64), case["ends_after"].as_u64(), "{case}");
            assert_eq!(verdict(&settings, &all[..end.unwrap_or(all.len())]).best, case["best"].as_u64(), "{case}");
        }
    }
}
