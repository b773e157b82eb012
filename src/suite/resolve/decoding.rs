//! Variants that decode a policy of the suite in a way of their own (`policy`), or choose among what the reference writes (`best_of_n`).

use super::online;
use super::training::{Surroundings, no_effect};
use crate::error::Result;
use crate::suite::document::Table;
use crate::suite::rules;
use crate::suite::settings::{BestOfSettings, DecodedSettings, PolicySource};
use crate::suite::spec::VariantSpec;
use crate::suite::translate::with_suggestion;

/// What says how; they stand in for those of [generate].
pub(super) const KEYS: [&str; 3] = ["temperature", "top_p", "top_k"];

/// As `policy` names it.
const REFERENCE: &str = "reference";

/// `of`: what `written` decodes, one of `all` or the reference.
pub(super) fn decoded(
    written: &VariantSpec,
    of: &str,
    all: &[VariantSpec],
    around: &Surroundings,
    table: &Table<'_>,
) -> Result<PolicySource> {
    if let Some(key) = table.first_key(|key| !["name", "policy"].contains(&key) && !KEYS.contains(&key)) {
        return Err(no_effect(table, key, "this variant decodes another policy (`policy`) and trains nothing"));
    }
    let variant = variant_named(of, all, table)?;
    if !KEYS.iter().any(|key| table.has(key)) {
        let error = table.at_key("policy", format!("nothing says in what other way `{of}` is decoded"));
        return Err(error.help("give a `temperature`, `top_p` or `top_k`"));
    }
    let common = &around.generate;
    let mut s = DecodedSettings { of: variant, temperature: common.temperature, top_p: common.top_p, top_k: common.top_k };
    table.set(&mut s.temperature, "temperature", written.temperature, rules::NOT_NEGATIVE)?;
    table.set(&mut s.top_p, "top_p", written.top_p, rules::PROBABILITY)?;
    table.set_or_none(&mut s.top_k, "top_k", written.top_k, rules::any())?;
    if s.is_greedy() {
        if let Some(key) = table.first_key(|key| ["top_p", "top_k"].contains(&key)) {
            let message = format!("`{key}` has no effect: with temperature 0 decoding is greedy");
            return Err(table.at_key(key, message).help(format!("leave `{key}` out, or set a temperature above 0")));
        }
        (s.top_p, s.top_k) = (1.0, None);
    }
    // The reference sampled once more is a comparison of like with like, unless nothing is drawn.
    if s.over(common) == *common && (s.of.is_some() || s.is_greedy()) {
        let error = table.at_key("policy", format!("this would repeat `{of}`: [generate] decodes it in the same way"));
        return Err(error.help("give another `temperature`, `top_p` or `top_k`, or leave this variant out"));
    }
    Ok(PolicySource::Decoded(s))
}

pub(super) fn best_of(written: &VariantSpec, counts: &[u64], around: &Surroundings, table: &Table<'_>) -> Result<PolicySource> {
    if let Some(key) = table.first_key(|key| !["name", "best_of_n", "reward_model"].contains(&key)) {
        let why = "this variant chooses among completions of the reference (`best_of_n`) and trains nothing";
        return Err(no_effect(table, key, why));
    }
    let rises = counts.windows(2).all(|two| two[0] < two[1]);
    if counts.first().is_none_or(|&least| least == 0) || !rises {
        let error = table.at_value("best_of_n", "`best_of_n` must be one or more rising numbers, the first at least 1");
        return Err(error.help("best_of_n = [1, 2, 4, 8], say"));
    }
    if around.generate.temperature == 0.0 {
        let message = "there is nothing to choose: with temperature 0 in [generate] all completions of a prompt are one text";
        return Err(table.at_key("best_of_n", message).help("set a temperature above 0, or leave this variant out"));
    }
    if around.labelling.conversational {
        let message =
            "what a policy writes comes without the template's ending, which a reward model of conversations was trained on";
        return Err(table.at_key("best_of_n", message).help("choose among texts, or leave this variant out"));
    }
    let rewards = &around.reward_models;
    let only = rewards.first().filter(|_| rewards.len() == 1).cloned();
    let Some(reward_model) = online::reward_model(written.reward_model.as_ref(), rewards, table)?.or(only) else {
        let error = table.at_key("best_of_n", "`best_of_n` needs `reward_model`: who chooses");
        return Err(error.help(online::reward_models(rewards, "", "write one of ")));
    };
    Ok(PolicySource::BestOfN(BestOfSettings { best_of_n: counts.to_vec(), reward_model }))
}

/// None: the reference.
fn variant_named(of: &str, all: &[VariantSpec], table: &Table<'_>) -> Result<Option<String>> {
    if of == REFERENCE {
        return Ok(None);
    }
    match all.iter().find(|variant| variant.name == of) {
        Some(VariantSpec { policy: Some(inner), .. }) => {
            let error = table.at_value("policy", format!("`{of}` is itself another policy decoded: `{inner}`"));
            Err(error.help("name a variant that is trained here or a `checkpoint`, or \"reference\""))
        }
        Some(VariantSpec { best_of_n: Some(_), .. }) => {
            let error = table.at_value("policy", format!("`{of}` is chosen completions of the reference, not a model"));
            Err(error.help("name a variant that is trained here or a `checkpoint`, or \"reference\""))
        }
        Some(_) => Ok(Some(of.to_owned())),
        None => {
            let own = all.iter().filter(|v| v.policy.is_none() && v.best_of_n.is_none()).map(|variant| variant.name.clone());
            let names: Vec<String> = own.chain([REFERENCE.to_owned()]).collect();
            let error = table.at_value("policy", format!("there is no policy `{of}`"));
            Err(error.help(with_suggestion(of, &names, "the policies are ")))
        }
    }
}
