//! The keys of training in rounds.

use super::training::Surroundings;
use crate::error::Result;
use crate::suite::defaults;
use crate::suite::document::Table;
use crate::suite::rules;
use crate::suite::settings::{LossType, ObjectiveSettings, RoundSettings, TrainSettings};
use crate::suite::spec::TrainSpec;
use crate::suite::translate::with_suggestion;

/// All of them.
pub(super) const KEYS: [&str; 5] = ["rounds", "round_reference", "round_judge", "round_samples", "round_pairs"];

/// What the rest of a suite gives the rounds after the first.
pub(super) struct Labelling {
    /// Names of those who can label.
    pub(super) judges: Vec<String>,
    /// The one who does unless a suite says otherwise; none: it must say.
    pub(super) judge: Option<String>,
    pub(super) samples_per_prompt: usize,
    pub(super) pairs_per_prompt: usize,
    /// Whether completions end as a chat template ends them: what a policy writes comes without that ending.
    pub(super) conversational: bool,
}

/// The rounds of a training whose tables are laid over each other in this order; none: there is one.
pub(super) fn settings(layers: &[(&TrainSpec, &Table<'_>)], around: &Surroundings) -> Result<Option<RoundSettings>> {
    let labelling = &around.labelling;
    let (mut rounds, mut reference, mut judge) = (1, defaults::ROUND_REFERENCE, labelling.judge.clone());
    let (mut samples, mut pairs) = (labelling.samples_per_prompt, labelling.pairs_per_prompt);
    for (written, table) in layers {
        table.set(&mut rounds, "rounds", written.rounds, rules::STEPS)?;
        table.set(&mut reference, "round_reference", written.round_reference, rules::any())?;
        table.set(&mut samples, "round_samples", written.round_samples, rules::TWO_OR_MORE)?;
        table.set(&mut pairs, "round_pairs", written.round_pairs, rules::AT_LEAST_ONE)?;
        if let Some(name) = &written.round_judge {
            if !labelling.judges.contains(name) {
                let error =
                    table.at_value("round_judge", format!("there is no judge `{name}` to label the pairs of later rounds"));
                return Err(error.help(with_suggestion(name, &labelling.judges, "the judges are ")));
            }
            judge = Some(name.clone());
        }
    }
    if rounds == 1 {
        return Ok(None);
    }
    let asking = |keys: &[&str]| {
        let asks = |table: &&Table<'_>| keys.iter().any(|key| table.has(key));
        layers.iter().map(|(_, table)| *table).rev().find(asks).expect("rounds are asked for")
    };
    if labelling.conversational {
        let message = "rounds after the first would learn conversations without the template's ending, which samples don't carry";
        return Err(asking(&["rounds"]).at_value("rounds", message).help("train on conversations in one round"));
    }
    let most = samples.saturating_mul(samples - 1) / 2;
    if pairs > most {
        let table = asking(&["round_pairs", "round_samples", "rounds"]);
        let key = ["round_pairs", "round_samples"].into_iter().find(|key| table.has(key)).unwrap_or("rounds");
        let message = format!("round_pairs = {pairs} is too many: {samples} samples make {most} pairs");
        return Err(table.at_value(key, message).help("lower round_pairs or raise round_samples"));
    }
    let Some(judge) = judge else {
        let listed = with_suggestion("", &labelling.judges, "write `round_judge`, one of ");
        let message = "with several judges the suite must say who labels the pairs of later rounds";
        return Err(asking(&["rounds"]).at_key("rounds", message).help(listed));
    };
    Ok(Some(RoundSettings { rounds, reference, judge, samples_per_prompt: samples, pairs_per_prompt: pairs }))
}

/// The keys that would change nothing, each with the reason.
pub(super) fn ineffective(settings: &TrainSettings) -> Vec<(&'static str, String)> {
    match &settings.rounds {
        None => KEYS[1..].iter().map(|&key| (key, "there is one round (`rounds`)".to_owned())).collect(),
        Some(_) if !has_reference(&settings.objective) => {
            vec![("round_reference", "what is learnt doesn't depend on a reference".to_owned())]
        }
        Some(_) => Vec::new(),
    }
}

/// Whether the reference has a say in what is learnt.
fn has_reference(objective: &ObjectiveSettings) -> bool {
    let own = |loss: &LossType| !loss.is_reference_free() && !matches!(loss, LossType::Sft | LossType::Unlikelihood);
    objective.kl_coef > 0.0 || objective.loss_type.iter().any(own)
}
