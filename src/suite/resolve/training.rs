//! `[sft]`, `[train]` and `[[variant]]`: training settings, laid over each other.

use std::path::Path;

use super::{decoding, evaluation, lora, name_is_free, names_differ, objective, online, rounds};
use crate::error::{Error, Result};
use crate::suite::defaults::{self, Purpose};
use crate::suite::document::{Document, Table};
use crate::suite::rules;
use crate::suite::settings::{
    GenerateSettings, ModelSource, Optimizer, PolicySource, Sampling, Scheduler, TrainSettings, Variant,
};
use crate::suite::spec::{SuiteSpec, TrainSpec, VariantSpec};

/// What other tables say about every training.
pub(super) struct Surroundings {
    pub(super) sampling: Sampling,
    /// Tokens that the model reads, where the suite says it.
    pub(super) context: Option<usize>,
    /// Whether the data are pairs, not single completions.
    pub(super) pairs: bool,
    /// Whether any are held out.
    pub(super) held_out: bool,
    pub(super) labelling: rounds::Labelling,
    /// Who can score what a policy writes.
    pub(super) reward_models: Vec<String>,
    /// How all policies are decoded that don't say it.
    pub(super) generate: GenerateSettings,
}

impl Surroundings {
    /// Longest text by default, in tokens.
    pub(super) fn max_length(&self) -> usize {
        self.context.map_or(defaults::MAX_LENGTH, |context| context.min(defaults::MAX_LENGTH))
    }

    pub(super) fn defaults(&self, purpose: Purpose) -> TrainSettings {
        TrainSettings { max_length: Some(self.max_length()), ..defaults::training(purpose, self.sampling) }
    }

    /// Refuses a training that asks for what isn't there.
    fn suffice(&self, settings: &TrainSettings, purpose: Purpose, table: &Table<'_>) -> Result<()> {
        let needs_pairs = settings.online.is_none() && !settings.objective.is_unpaired();
        if purpose == Purpose::Preference && !self.pairs && needs_pairs {
            let losses: Vec<String> = settings.objective.loss_type.iter().map(|loss| format!("\"{}\"", loss.name())).collect();
            let message = format!("{} learns from pairs, and an unpaired file has none", losses.join(" + "));
            let help = "set loss_type = \"kto\" or \"apo_zero_unpaired\", or give pairs (`format` in [dataset])";
            return Err(table.at_key("loss_type", message).help(help));
        }
        if settings.packing && settings.max_length.is_none() {
            let message = "`packing` fills bins of max_length tokens, and max_length = 0 gives them no size";
            return Err(table.at_key("packing", message).help("give a max_length, or leave `packing` out"));
        }
        if settings.evaluation.eval_steps.is_some() && !self.held_out {
            let message = "`eval_steps` measures held-out examples, and heldout_share = 0 in [dataset] holds none out";
            return Err(table.at_key("eval_steps", message).help("raise heldout_share, or leave `eval_steps` out"));
        }
        Ok(())
    }

    /// A written length above what the model reads would cut nothing.
    pub(super) fn length_fits(&self, length: Option<usize>, table: &Table<'_>) -> Result<()> {
        match (length, self.context) {
            (Some(length), Some(context)) if length > context && table.has("max_length") => Err(table
                .at_value("max_length", format!("max_length = {length} is more than the {context} tokens that the model reads"))
                .help("lower it, or raise max_position_embeddings in [model]")),
            _ => Ok(()),
        }
    }
}

pub(super) fn sft(
    spec: &SuiteSpec,
    model: &ModelSource,
    surroundings: &Surroundings,
    document: &Document,
) -> Result<Option<TrainSettings>> {
    let table = document.table("sft");
    let Some(written) = &spec.sft else {
        if matches!(model, ModelSource::Fresh(_)) {
            let error = table.at_header("a fresh model needs `[sft]`: with random weights it writes noise");
            return Err(error.help("add an [sft] table, or give a trained model in [model] `path`"));
        }
        return Ok(None);
    };
    alone(written, Purpose::Sft, surroundings, &table).map(Some)
}

/// Settings of a table that nothing is laid over.
pub(super) fn alone(
    written: &TrainSpec,
    purpose: Purpose,
    surroundings: &Surroundings,
    table: &Table<'_>,
) -> Result<TrainSettings> {
    let mut settings = surroundings.defaults(purpose);
    overlay(&mut settings, written, surroundings, table)?;
    match ineffective(&settings, purpose).into_iter().find(|(key, _)| table.has(key)) {
        Some((key, why)) => Err(no_effect(table, key, &why)),
        None => surroundings.suffice(&settings, purpose, table).map(|()| settings),
    }
}

pub(super) fn variants(spec: &SuiteSpec, surroundings: &Surroundings, document: &Document) -> Result<Vec<Variant>> {
    if spec.variant.is_empty() {
        let error = document.table("").at_header("the suite has no `[[variant]]`, so there is nothing to evaluate");
        return Err(error.help("add a [[variant]] with a `name`; see `dpo-eval suite init` for an example"));
    }
    let names: Vec<&str> = spec.variant.iter().map(|variant| variant.name.as_str()).collect();
    names_differ(&names, "variant", document)?;
    let train = document.table("train");
    let written = spec.train.clone().unwrap_or_default();
    let mut common = surroundings.defaults(Purpose::Preference);
    overlay(&mut common, &written, surroundings, &train)?;
    let below = Below { settings: common, written: &written, table: &train };
    let variants = spec
        .variant
        .iter()
        .enumerate()
        .map(|(index, written)| {
            let table = document.table(format!("variant[{index}]"));
            variant(written, &spec.variant, &below, surroundings, &table)
        })
        .collect::<Result<Vec<Variant>>>()?;
    if spec.train.is_some() {
        train_has_effect(&variants, &train)?;
    }
    Ok(variants)
}

/// `[train]`, over which variants are laid.
struct Below<'a> {
    settings: TrainSettings,
    written: &'a TrainSpec,
    table: &'a Table<'a>,
}

/// `all`: every variant, as written.
fn variant(
    written: &VariantSpec,
    all: &[VariantSpec],
    below: &Below<'_>,
    surroundings: &Surroundings,
    table: &Table<'_>,
) -> Result<Variant> {
    name_is_free(&written.name, table)?;
    let policy = match (&written.checkpoint, &written.policy, &written.best_of_n) {
        (Some(path), ..) => elsewhere(written, path, surroundings, table)?,
        (None, Some(of), _) => decoding::decoded(written, of, all, surroundings, table)?,
        (None, None, Some(counts)) => decoding::best_of(written, counts, surroundings, table)?,
        (None, None, None) => trained(written, below, surroundings, table)?,
    };
    Ok(Variant { name: written.name.clone(), policy })
}

fn elsewhere(written: &VariantSpec, path: &Path, surroundings: &Surroundings, table: &Table<'_>) -> Result<PolicySource> {
    if let Some(key) = table.first_key(|key| !["name", "checkpoint", "beta"].contains(&key)) {
        return Err(no_effect(table, key, "this policy was trained elsewhere (`checkpoint`)"));
    }
    if !surroundings.pairs && table.has("beta") {
        let why = "implicit rewards are measured on held-out pairs, and an unpaired file has none";
        return Err(no_effect(table, "beta", why));
    }
    let mut beta = defaults::training(Purpose::Preference, surroundings.sampling).objective.beta;
    table.set(&mut beta, "beta", written.beta, rules::POSITIVE)?;
    Ok(PolicySource::Checkpoint { path: path.to_owned(), beta })
}

fn trained(written: &VariantSpec, below: &Below<'_>, surroundings: &Surroundings, table: &Table<'_>) -> Result<PolicySource> {
    if let Some(key) = table.first_key(|key| decoding::KEYS.contains(&key)) {
        return Err(no_effect(table, key, "it goes with `policy`, to decode another policy; [generate] decodes this one"));
    }
    let (mut settings, own) = (below.settings.clone(), written.training());
    overlay(&mut settings, &own, surroundings, table)?;
    let layers = [(below.written, below.table), (&own, table)];
    settings.online = online::settings(&settings, &layers, surroundings)?;
    settings.rounds = match settings.online {
        Some(_) => None,
        None => rounds::settings(&layers, surroundings)?,
    };
    online::narrow(&mut settings);
    if let Some((key, why)) = ineffective(&settings, Purpose::Preference).into_iter().find(|(key, _)| table.has(key)) {
        return Err(no_effect(table, key, &why));
    }
    objective::agrees(&settings, table)?;
    surroundings.suffice(&settings, Purpose::Preference, table)?;
    Ok(PolicySource::Train(Box::new(settings)))
}

/// A key of `[train]` must matter to at least one variant.
fn train_has_effect(variants: &[Variant], table: &Table<'_>) -> Result<()> {
    let trained: Vec<&TrainSettings> = variants.iter().filter_map(Variant::training).collect();
    let Some((first, others)) = trained.split_first() else {
        let error = table.at_header("`[train]` has no effect: no variant is trained here");
        return Err(error.help("leave [train] out, or add a [[variant]] that is trained"));
    };
    for (key, why) in ineffective(first, Purpose::Preference) {
        let everywhere = others.iter().all(|other| ineffective(other, Purpose::Preference).iter().any(|(k, _)| *k == key));
        if everywhere && table.has(key) {
            return Err(no_effect(table, key, &why));
        }
    }
    Ok(())
}

pub(super) fn no_effect(table: &Table<'_>, key: &str, why: &str) -> Error {
    table.at_key(key, format!("`{key}` has no effect in {}: {why}", table.title())).help(format!("leave `{key}` out"))
}

/// Overwrites `settings` with what `table` writes.
fn overlay(settings: &mut TrainSettings, written: &TrainSpec, around: &Surroundings, table: &Table<'_>) -> Result<()> {
    let s = settings;
    objective::overlay(&mut s.objective, written, table)?;
    table.set(&mut s.learning_rate, "learning_rate", written.learning_rate, rules::POSITIVE)?;
    table.set(&mut s.lr_scheduler_type, "lr_scheduler_type", written.lr_scheduler_type, rules::any())?;
    table.set(&mut s.warmup_steps, "warmup_steps", written.warmup_steps, rules::any())?;
    table.set(&mut s.optim, "optim", written.optim, rules::any())?;
    table.set(&mut s.adam_beta1, "adam_beta1", written.adam_beta1, rules::BELOW_ONE)?;
    table.set(&mut s.adam_beta2, "adam_beta2", written.adam_beta2, rules::BELOW_ONE)?;
    table.set(&mut s.adam_epsilon, "adam_epsilon", written.adam_epsilon, rules::POSITIVE)?;
    table.set(&mut s.momentum, "momentum", written.momentum, rules::BELOW_ONE)?;
    table.set(&mut s.weight_decay, "weight_decay", written.weight_decay, rules::NOT_NEGATIVE)?;
    table.set_or_none(&mut s.max_grad_norm, "max_grad_norm", written.max_grad_norm, rules::POSITIVE)?;
    let batch = written.per_device_train_batch_size;
    table.set(&mut s.per_device_train_batch_size, "per_device_train_batch_size", batch, rules::AT_LEAST_ONE)?;
    let accumulation = written.gradient_accumulation_steps;
    table.set(&mut s.gradient_accumulation_steps, "gradient_accumulation_steps", accumulation, rules::AT_LEAST_ONE)?;
    table.set(&mut s.num_train_epochs, "num_train_epochs", written.num_train_epochs, rules::POSITIVE)?;
    duration(s, written, table)?;
    table.set_or_none(&mut s.max_length, "max_length", written.max_length, rules::TWO_OR_MORE)?;
    around.length_fits(s.max_length, table)?;
    table.set(&mut s.packing, "packing", written.packing, rules::any())?;
    table.set(&mut s.packing_strategy, "packing_strategy", written.packing_strategy, rules::any())?;
    table.set(&mut s.resid_pdrop, "resid_pdrop", written.resid_pdrop, rules::BELOW_ONE)?;
    table.set(&mut s.gradient_checkpointing, "gradient_checkpointing", written.gradient_checkpointing, rules::any())?;
    table.set_or_none(&mut s.save_steps, "save_steps", written.save_steps, rules::STEPS)?;
    evaluation::overlay(&mut s.evaluation, written, table)?;
    lora::overlay(&mut s.lora, written, table)
}

/// `max_steps` stands in place of `num_train_epochs`; the table that is laid on top decides which of the two counts.
fn duration(settings: &mut TrainSettings, written: &TrainSpec, table: &Table<'_>) -> Result<()> {
    match (written.max_steps, written.num_train_epochs) {
        (Some(_), Some(_)) => Err(no_effect(table, "num_train_epochs", "`max_steps` decides how long training takes")),
        (None, Some(_)) => {
            settings.max_steps = None;
            Ok(())
        }
        (Some(steps), None) => {
            let mut inner = steps;
            table.set(&mut inner, "max_steps", written.max_steps, rules::STEPS)?;
            settings.max_steps = Some(inner);
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

/// What only fine-tuning has.
const PACKING: [&str; 2] = ["packing", "packing_strategy"];

/// The keys that would change nothing, each with the reason.
fn ineffective(settings: &TrainSettings, purpose: Purpose) -> Vec<(&'static str, String)> {
    let mut keys = match purpose {
        Purpose::Preference => match &settings.online {
            None => [objective::ineffective(&settings.objective), rounds::ineffective(settings), online::ineffective(settings)]
                .concat(),
            Some(_) => [objective::ineffective(&settings.objective), online::ineffective(settings)].concat(),
        },
        Purpose::Sft | Purpose::Judge => Vec::new(),
    };
    let mut add = |names: &[&'static str], why: &str| keys.extend(names.iter().map(|&name| (name, why.to_owned())));
    match purpose {
        Purpose::Preference => add(&PACKING, "a batch of preference training counts examples; only [sft] packs"),
        Purpose::Sft => {
            add(&objective::KEYS, "fine-tuning minimises the cross-entropy");
            add(&rounds::KEYS, "fine-tuning has one round");
            add(&online::KEYS, "fine-tuning learns from demonstrations");
            if !settings.packing {
                add(&["packing_strategy"], "`packing` isn't true");
            }
        }
        Purpose::Judge => {
            add(&objective::KEYS, "judges are trained by the Bradley–Terry likelihood");
            add(&lora::KEYS, "judges are trained whole");
            add(&rounds::KEYS, "judges are trained once");
            add(&online::KEYS, "judges learn from pairs");
            add(&["resid_pdrop"], "judges are trained without dropout");
            add(&PACKING, "a batch of a judge's training counts pairs; only [sft] packs");
        }
    }
    add(lora::ineffective(settings.lora.as_ref()), "the adapter of `lora_adapter` has its own");
    if settings.lr_scheduler_type == Scheduler::Constant {
        add(&["warmup_steps"], "lr_scheduler_type = \"constant\" doesn't warm up (\"constant_with_warmup\" does)");
    }
    if settings.optim != Optimizer::Adamw {
        add(&["adam_beta1", "adam_beta2", "adam_epsilon"], "optim isn't \"adamw\"");
    }
    if settings.optim != Optimizer::Sgd {
        add(&["momentum"], "optim isn't \"sgd\"");
    }
    keys.extend(evaluation::ineffective(settings, purpose));
    if let (Some(max), Some(save)) = (settings.max_steps, settings.save_steps)
        && save > max
    {
        keys.push(("save_steps", format!("training ends after max_steps = {max}")));
    }
    keys
}
