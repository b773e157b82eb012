//! `[study]`: what a suite is run to find out. Methods are groups of variants, claims are sentences about them that were written down before
//! anything ran, each of a kind whose rule (`checks::study`) decides it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::resolve::names_differ;
use super::settings::{Dataset, PolicySource, Variant};
use super::translate::with_suggestion;
use crate::error::Result;

/// Methods compared with each other over all their strengths, seeds and checkpoints, and what is expected of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudySettings {
    /// Ways of training.
    #[serde(default)]
    pub method: Vec<MethodSettings>,
    /// What is expected, written down before anything ran.
    #[serde(default)]
    pub claim: Vec<ClaimSettings>,
}

/// A way of training: its variants differ in strength.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodSettings {
    /// As people call it: `DPO`.
    pub name: String,
    /// Names of variants, from the one that is to go furthest from the reference (the smallest beta, say) to the one that stays nearest.
    pub variants: Vec<String>,
}

/// An expectation and how it is decided: supported, contradicted or undecided, whichever way it falls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimSettings {
    /// Names the claim: letters, digits, `.`, `_`, `-`.
    pub name: String,
    pub kind: ClaimKind,
    /// The expectation as a sentence.
    pub expected: String,
    /// The method that it is about.
    pub method: String,
    /// The method that it is compared with; a claim on the order of KL has none.
    pub against: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// At equal KL the method's reward is higher.
    Frontier,
    /// The method's reward varies less between seeds.
    SeedVariance,
    /// The method's implicit rewards predict held-out labels better: lower log-loss.
    Calibration,
    /// At equal KL the deciding judge overrates the method less: its win rate exceeds gold's by less.
    OverOptimisation,
    /// Each of the method's variants stays nearer to the reference than the one before it.
    KlOrder,
}

impl ClaimKind {
    fn compares(self) -> bool {
        self != Self::KlOrder
    }
}

/// What claims rest on.
pub(super) struct Ground<'a> {
    pub dataset: &'a Dataset,
    pub variants: &'a [Variant],
    pub seeds: usize,
    /// The deciding judge.
    pub judge: &'a str,
    pub gold: &'a str,
}

pub(super) fn resolve(written: Option<&StudySettings>, ground: &Ground, document: &Document) -> Result<Option<StudySettings>> {
    let Some(study) = written else { return Ok(None) };
    if study.method.is_empty() {
        let error = document.table("study").at_header("[study] has no method, so there is nothing to compare");
        return Err(error.help("add [[study.method]] with `name` and `variants`"));
    }
    names_differ(&study.method.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), "study.method", document)?;
    names_differ(&study.claim.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), "study.claim", document)?;
    for (index, method) in study.method.iter().enumerate() {
        self::method(method, ground, document, index)?;
    }
    for (index, claim) in study.claim.iter().enumerate() {
        self::claim(claim, &study.method, ground, document, index)?;
    }
    Ok(Some(study.clone()))
}

fn method(method: &MethodSettings, ground: &Ground, document: &Document, index: usize) -> Result<()> {
    let table = document.table(format!("study.method[{index}]"));
    if method.name.trim().is_empty() {
        return Err(table.at_value("name", "a method needs a name").help("write what people call it, `DPO` say"));
    }
    if method.variants.is_empty() {
        return Err(table.at_value("variants", format!("method `{}` has no variants", method.name)));
    }
    let known: Vec<String> = ground.variants.iter().map(|variant| variant.name.clone()).collect();
    for (place, name) in method.variants.iter().enumerate() {
        if !known.contains(name) {
            let error = table.at_value("variants", format!("there is no variant `{name}`"));
            return Err(error.help(with_suggestion(name, &known, "the variants are ")));
        }
        if ground.variants.iter().any(|variant| variant.name == *name && matches!(variant.policy, PolicySource::Decoded(_))) {
            let error =
                table.at_value("variants", format!("`{name}` is another variant decoded in another way, whose KL isn't known"));
            return Err(error.help("leave it out: its win rates stand in the report, over the temperature"));
        }
        if method.variants[..place].contains(name) {
            return Err(table.at_value("variants", format!("variant `{name}` is named twice")).help("leave one out"));
        }
    }
    let [chosen, all] = [chooses(method, ground), method.variants.len()];
    if chosen > 0 && chosen < all {
        let error = table.at_value("variants", "best of n and what is trained lie on curves of different forms");
        return Err(error.help("give best of n a method of its own"));
    }
    Ok(())
}

/// How many variants of a method are best of n.
fn chooses(method: &MethodSettings, ground: &Ground) -> usize {
    let best = |name: &&String| ground.variants.iter().any(|v| v.name == **name && matches!(v.policy, PolicySource::BestOfN(_)));
    method.variants.iter().filter(best).count()
}

fn claim(claim: &ClaimSettings, methods: &[MethodSettings], ground: &Ground, document: &Document, index: usize) -> Result<()> {
    let table = document.table(format!("study.claim[{index}]"));
    let known: Vec<String> = methods.iter().map(|method| method.name.clone()).collect();
    let among = |key: &str, name: &String| {
        if known.contains(name) {
            return Ok(());
        }
        let error = table.at_value(key, format!("there is no method `{name}`"));
        Err(error.help(with_suggestion(name, &known, "the methods are ")))
    };
    super::resolve::name_is_usable(&claim.name, &table)?;
    if claim.expected.trim().is_empty() {
        let error = table.at_value("expected", "a claim says what is expected");
        return Err(error.help("write the expectation as a sentence, before anything runs"));
    }
    among("method", &claim.method)?;
    match &claim.against {
        Some(_) if !claim.kind.compares() => {
            return Err(table
                .at_key("against", "`against` has no effect: the variants of one method are compared")
                .help("leave it out"));
        }
        None if claim.kind.compares() => {
            let error = table.at_header(format!("claim `{}` doesn't say what `{}` is compared with", claim.name, claim.method));
            return Err(error.help("name the other method in `against`"));
        }
        Some(against) => {
            among("against", against)?;
            if *against == claim.method {
                return Err(table.at_value("against", "a method can't be compared with itself"));
            }
        }
        None => {}
    }
    let named = |name: &str| methods.iter().find(|method| method.name == name);
    let chosen = [Some(&claim.method), claim.against.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(|name| named(name))
        .any(|m| chooses(m, ground) > 0);
    let variants = named(&claim.method).map_or(0, |method| method.variants.len());
    let lacking = match claim.kind {
        ClaimKind::SeedVariance if ground.seeds < 2 => {
            Some(("seeds don't vary where there is one", "give the suite two `seeds` or more"))
        }
        ClaimKind::Calibration if !ground.dataset.has_pairs() => {
            Some(("implicit rewards are held against pairs, and an unpaired file has none", "leave the claim out"))
        }
        ClaimKind::Calibration if chosen => {
            Some(("best of n gives pairs no log-probability, so it has no implicit rewards", "leave the claim out"))
        }
        ClaimKind::OverOptimisation if !matches!(ground.dataset, Dataset::World(_)) => {
            Some(("over-optimisation is measured against gold, which only a world has", "leave the claim out"))
        }
        ClaimKind::OverOptimisation if ground.judge == ground.gold => {
            Some(("the deciding judge is gold, which can't be over-optimised", "let another judge decide in [compare]"))
        }
        ClaimKind::KlOrder if variants < 2 => {
            Some(("one variant has no order", "name several variants in the method, from the furthest to the nearest"))
        }
        _ => None,
    };
    match lacking {
        Some((message, help)) => Err(table.at_value("kind", message).help(help)),
        None => Ok(()),
    }
}
