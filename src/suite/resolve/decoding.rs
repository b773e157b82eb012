//! Variants that decode a policy of the suite in a way of their own (`policy`).

use super::training::{Surroundings, no_effect};
use crate::error::Result;
use crate::suite::document::Table;
use crate::suite::rules;
use crate::suite::settings::{DecodedSettings, PolicySource};
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
        Some(_) => Ok(Some(of.to_owned())),
        None => {
            let own = all.iter().filter(|variant| variant.policy.is_none()).map(|variant| variant.name.clone());
            let names: Vec<String> = own.chain([REFERENCE.to_owned()]).collect();
            let error = table.at_value("policy", format!("there is no policy `{of}`"));
            Err(error.help(with_suggestion(of, &names, "the policies are ")))
        }
    }
}
