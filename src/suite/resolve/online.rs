//! The keys of training on what the policy itself writes (PPO, RLOO).

use super::training::Surroundings;
use crate::error::Result;
use crate::suite::document::Table;
use crate::suite::rules::{self, Rule};
use crate::suite::settings::{EvaluationSettings, LossType, OnlineSettings, PpoSettings, TrainSettings};
use crate::suite::spec::TrainSpec;
use crate::suite::translate::with_suggestion;

/// All of them: those of both losses, then PPO's own.
pub(super) const KEYS: [&str; 12] = [
    "reward_model",
    "num_generations",
    "missing_eos_penalty",
    "target_kl",
    "num_ppo_epochs",
    "num_mini_batches",
    "cliprange",
    "cliprange_value",
    "vf_coef",
    "gamma",
    "lam",
    "whiten_rewards",
];

/// How many of them both losses have.
const SHARED: usize = 4;

/// TRL's: of PPO one, of RLOO two, which is the least.
fn generations(loss: LossType) -> usize {
    if loss == LossType::Rloo { 2 } else { 1 }
}

const RANGE: Rule<f64> = Rule { words: "more than 0 and less than 1", holds: |x| x > 0.0 && x < 1.0 };

/// Of a training whose tables are laid over each other in this order; none: it learns from data.
pub(super) fn settings(
    settings: &TrainSettings,
    layers: &[(&TrainSpec, &Table<'_>)],
    around: &Surroundings,
) -> Result<Option<OnlineSettings>> {
    let Some(&loss) = settings.objective.loss_type.iter().find(|loss| loss.is_online()) else { return Ok(None) };
    let rewards = &around.reward_models;
    let mut reward = match rewards.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    };
    let (mut k, mut penalty, mut target, mut ppo) = (generations(loss), 0.0, None, PpoSettings::default());
    let least = if loss == LossType::Rloo { rules::TWO_OR_MORE } else { rules::AT_LEAST_ONE };
    for (written, table) in layers {
        reward = reward_model(written.reward_model.as_ref(), rewards, table)?.or(reward);
        let Rule { words, holds } = least;
        table.set(&mut k, "num_generations", written.num_generations, Rule { words, holds })?;
        table.set(&mut penalty, "missing_eos_penalty", written.missing_eos_penalty, rules::NOT_NEGATIVE)?;
        if let Some(kl) = written.target_kl {
            table.set(target.insert(kl), "target_kl", Some(kl), rules::POSITIVE)?;
        }
        table.set(&mut ppo.num_ppo_epochs, "num_ppo_epochs", written.num_ppo_epochs, rules::AT_LEAST_ONE)?;
        table.set(&mut ppo.num_mini_batches, "num_mini_batches", written.num_mini_batches, rules::AT_LEAST_ONE)?;
        table.set(&mut ppo.cliprange, "cliprange", written.cliprange, RANGE)?;
        table.set(&mut ppo.cliprange_value, "cliprange_value", written.cliprange_value, rules::POSITIVE)?;
        table.set(&mut ppo.vf_coef, "vf_coef", written.vf_coef, rules::POSITIVE)?;
        table.set(&mut ppo.gamma, "gamma", written.gamma, rules::PROBABILITY)?;
        table.set(&mut ppo.lam, "lam", written.lam, rules::UNIT)?;
        table.set(&mut ppo.whiten_rewards, "whiten_rewards", written.whiten_rewards, rules::any())?;
    }
    let asking = layers.iter().map(|(_, table)| *table).rev().find(|table| table.has("loss_type")).expect("a loss was asked for");
    if settings.objective.loss_type.len() > 1 {
        let message = format!("\"{}\" learns from what the policy writes and can't be combined with another loss", loss.name());
        return Err(asking.at_key("loss_type", message).help("give it alone"));
    }
    if around.labelling.conversational {
        let message =
            "what a policy writes comes without the template's ending, which a reward model of conversations was trained on";
        return Err(asking.at_key("loss_type", message).help("train on texts, or by a loss over pairs"));
    }
    let Some(reward_model) = reward else {
        let message = format!("\"{}\" needs `reward_model`: who scores what the policy writes", loss.name());
        return Err(asking.at_key("loss_type", message).help(reward_models(rewards, "", "write one of ")));
    };
    if loss == LossType::Ppo && settings.lora.is_some() {
        let message = "\"ppo\" trains a value head beside all weights, and an adapter freezes these";
        return Err(asking.at_key("loss_type", message).help("leave the adapter out, or use \"rloo\""));
    }
    let batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps;
    if loss == LossType::Ppo && batch < ppo.num_mini_batches {
        let message = format!("num_mini_batches = {} is more than the {batch} prompts of a step", ppo.num_mini_batches);
        return Err(asking.at_key("num_mini_batches", message).help("lower it, or raise per_device_train_batch_size"));
    }
    let ppo = (loss == LossType::Ppo).then_some(ppo);
    Ok(Some(OnlineSettings { reward_model, num_generations: k, missing_eos_penalty: penalty, target_kl: target, ppo }))
}

/// The reward model that a table names, one of `rewards`.
pub(super) fn reward_model(written: Option<&String>, rewards: &[String], table: &Table<'_>) -> Result<Option<String>> {
    match written.filter(|name| !rewards.contains(name)) {
        None => Ok(written.cloned()),
        Some(name) => {
            let error = table.at_value("reward_model", format!("there is no reward model `{name}` that this suite trains"));
            Err(error.help(reward_models(rewards, name, "there is ")))
        }
    }
}

/// Which there are, or how there would be one.
pub(super) fn reward_models(rewards: &[String], name: &str, lead: &str) -> String {
    match rewards.is_empty() {
        true => "add a [[judge]] with kind = \"reward_model\" and without `path`".to_owned(),
        false => with_suggestion(name, rewards, lead),
    }
}

/// Takes away what `[train]` says for other losses.
pub(super) fn narrow(settings: &mut TrainSettings) {
    if settings.online.is_some() {
        settings.evaluation =
            EvaluationSettings { save_total_limit: settings.evaluation.save_total_limit, ..EvaluationSettings::default() };
        settings.resid_pdrop = 0.0;
        settings.rounds = None;
    }
}

/// The keys that would change nothing, each with the reason.
pub(super) fn ineffective(settings: &TrainSettings) -> Vec<(&'static str, String)> {
    let every = |keys: &[&'static str], why: &str| keys.iter().map(|&key| (key, why.to_owned())).collect::<Vec<_>>();
    match &settings.online {
        None => every(&KEYS, "the loss learns from data, not from what the policy writes"),
        Some(online) => {
            let ppo = if online.ppo.is_some() { Vec::new() } else { every(&KEYS[SHARED..], "loss_type isn't \"ppo\"") };
            let held_out = every(&["eval_steps"], "what the policy writes has no held-out part");
            let dropout = every(&["resid_pdrop", "lora_dropout"], "what is learnt from was written without dropout");
            let rounds = every(&super::rounds::KEYS, "every step learns from what the policy writes then");
            [ppo, held_out, dropout, rounds].concat()
        }
    }
}
