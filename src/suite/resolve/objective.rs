//! The keys that say what is learnt from preferences: which losses take which of them, and what can't go together.

use crate::error::Result;
use crate::suite::document::Table;
use crate::suite::rules::{self, Rule};
use crate::suite::settings::{Dialect, FDivergence, LossType, ObjectiveSettings, Sampling, TrainSettings};
use crate::suite::spec::TrainSpec;

/// All of them.
pub(super) const KEYS: [&str; 23] = [
    "loss_type",
    "loss_weights",
    "dialect",
    "beta",
    "label_smoothing",
    "f_divergence_type",
    "f_alpha_divergence_coef",
    "ld_alpha",
    "use_weighting",
    "rdpo_alpha",
    "dpop_lambda",
    "kl_coef",
    "discopop_tau",
    "bco_shift",
    "simpo_gamma",
    "cpo_alpha",
    "unlikelihood_alpha",
    "desirable_weight",
    "undesirable_weight",
    "precompute_ref_log_probs",
    "sync_ref_model",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
];

const LOSSES: Rule<usize> = Rule { words: "a list with at least one loss", holds: |n| n > 0 };

/// Overwrites `settings` with what `table` writes.
pub(super) fn overlay(settings: &mut ObjectiveSettings, written: &TrainSpec, table: &Table<'_>) -> Result<()> {
    let s = settings;
    if let Some(losses) = &written.loss_type {
        let mut count = 0;
        table.set(&mut count, "loss_type", Some(losses.0.len()), LOSSES)?;
        s.loss_type = losses.0.clone();
        // Weights belong to the list that they were written for.
        s.loss_weights = vec![1.0; count];
    }
    if let Some(weights) = &written.loss_weights {
        let (losses, given) = (s.loss_type.len(), weights.len());
        if losses != given {
            let message = format!("`loss_weights` must have a number for each loss: {losses}, not {given}");
            return Err(table.at_value("loss_weights", message));
        }
        for (slot, &weight) in s.loss_weights.iter_mut().zip(weights) {
            table.set(slot, "loss_weights", Some(weight), EACH_POSITIVE)?;
        }
    }
    table.set(&mut s.dialect, "dialect", written.dialect, rules::any())?;
    table.set(&mut s.beta, "beta", written.beta, rules::POSITIVE)?;
    table.set(&mut s.label_smoothing, "label_smoothing", written.label_smoothing, rules::BELOW_HALF)?;
    table.set(&mut s.f_divergence_type, "f_divergence_type", written.f_divergence_type, rules::any())?;
    let alpha = written.f_alpha_divergence_coef;
    table.set(&mut s.f_alpha_divergence_coef, "f_alpha_divergence_coef", alpha, rules::FINITE)?;
    if let Some(alpha) = written.ld_alpha {
        table.set(s.ld_alpha.insert(alpha), "ld_alpha", written.ld_alpha, rules::BELOW_ONE)?;
    }
    table.set(&mut s.use_weighting, "use_weighting", written.use_weighting, rules::any())?;
    table.set(&mut s.rdpo_alpha, "rdpo_alpha", written.rdpo_alpha, rules::NOT_NEGATIVE)?;
    table.set(&mut s.dpop_lambda, "dpop_lambda", written.dpop_lambda, rules::NOT_NEGATIVE)?;
    table.set(&mut s.kl_coef, "kl_coef", written.kl_coef, rules::NOT_NEGATIVE)?;
    table.set(&mut s.discopop_tau, "discopop_tau", written.discopop_tau, rules::POSITIVE)?;
    table.set(&mut s.bco_shift, "bco_shift", written.bco_shift, rules::any())?;
    table.set(&mut s.simpo_gamma, "simpo_gamma", written.simpo_gamma, rules::NOT_NEGATIVE)?;
    table.set(&mut s.cpo_alpha, "cpo_alpha", written.cpo_alpha, rules::NOT_NEGATIVE)?;
    table.set(&mut s.unlikelihood_alpha, "unlikelihood_alpha", written.unlikelihood_alpha, rules::NOT_NEGATIVE)?;
    table.set(&mut s.desirable_weight, "desirable_weight", written.desirable_weight, rules::POSITIVE)?;
    table.set(&mut s.undesirable_weight, "undesirable_weight", written.undesirable_weight, rules::POSITIVE)?;
    let precompute = written.precompute_ref_log_probs;
    table.set(&mut s.precompute_ref_log_probs, "precompute_ref_log_probs", precompute, rules::any())?;
    table.set(&mut s.sync_ref_model, "sync_ref_model", written.sync_ref_model, rules::any())?;
    table.set(&mut s.ref_model_mixup_alpha, "ref_model_mixup_alpha", written.ref_model_mixup_alpha, rules::PROBABILITY)?;
    table.set(&mut s.ref_model_sync_steps, "ref_model_sync_steps", written.ref_model_sync_steps, rules::STEPS)
}

const EACH_POSITIVE: Rule<f64> = Rule { words: "numbers more than 0", holds: |x| x > 0.0 && x.is_finite() };

/// Built on the difference of the two sides' scores, so that another divergence may score them.
fn on_difference(loss: LossType) -> bool {
    use LossType::{Discopop, ExoPair, Hinge, Ipo, Robust, Sigmoid, SigmoidNorm};
    matches!(loss, Sigmoid | SigmoidNorm | Robust | Ipo | Hinge | ExoPair | Discopop)
}

/// Built on log-ratios to the reference, of both sides of a pair.
fn on_ratios(loss: LossType) -> bool {
    use LossType::{Aot, AotUnpaired, ApoDown, ApoZero, BcoPair, NcaPair, SppoHard};
    on_difference(loss) || matches!(loss, NcaPair | BcoPair | SppoHard | Aot | AotUnpaired | ApoZero | ApoDown)
}

/// A loss that sorts the batch has no loss of a single pair to weigh.
fn sorts(loss: LossType) -> bool {
    matches!(loss, LossType::Aot | LossType::AotUnpaired)
}

/// Whether a key changes a loss.
fn takes(loss: LossType, key: &str, dialect: Dialect) -> bool {
    if loss.is_online() {
        return key == "beta" || key == "loss_type" || key == "loss_weights";
    }
    use LossType::{Aot, AotUnpaired, Cpo, ExoPair, Robust, Sft, Sigmoid, Simpo, Unlikelihood};
    match key {
        "beta" => !matches!(loss, Sft | Unlikelihood),
        "label_smoothing" => match dialect {
            Dialect::DpoEval => matches!(loss, Sigmoid | Robust | ExoPair | Aot | AotUnpaired | Cpo | Simpo),
            Dialect::Trl => matches!(loss, Robust | ExoPair | Aot | AotUnpaired | Cpo | Simpo),
            Dialect::Original | Dialect::Openrlhf | Dialect::LlamaFactory => loss == Sigmoid,
        },
        "f_divergence_type" => on_difference(loss),
        "ld_alpha" => on_ratios(loss),
        "use_weighting" => (on_ratios(loss) && !sorts(loss)) || loss == Sft,
        "rdpo_alpha" | "dpop_lambda" => loss == Sigmoid,
        "discopop_tau" => loss == LossType::Discopop,
        "bco_shift" => loss == LossType::BcoPair,
        "simpo_gamma" => loss == Simpo,
        "cpo_alpha" => loss == Cpo,
        "unlikelihood_alpha" => loss == Unlikelihood,
        "desirable_weight" | "undesirable_weight" => loss.is_unpaired(),
        _ => true,
    }
}

/// The keys that would change nothing, each with the reason.
pub(super) fn ineffective(settings: &ObjectiveSettings) -> Vec<(&'static str, String)> {
    let s = settings;
    let mut keys = Vec::new();
    if s.loss_type.len() == 1 {
        keys.push(("loss_weights", "there is only one loss".to_owned()));
    }
    for key in KEYS {
        if s.loss_type.iter().any(|&loss| takes(loss, key, s.dialect)) {
            continue;
        }
        let why = match key {
            "label_smoothing" if s.dialect == Dialect::Trl && s.loss_type.contains(&LossType::Sigmoid) => {
                "TRL dropped it from \"sigmoid\" in 0.29, and dialect = \"trl\" does as TRL does".to_owned()
            }
            "label_smoothing" if s.loss_type.iter().any(|&loss| takes(loss, key, Dialect::DpoEval)) => {
                format!("with dialect = \"{}\" loss_type = {} takes no notice of it", s.dialect.name(), shown(&s.loss_type))
            }
            "use_weighting" if s.loss_type.iter().all(|&loss| sorts(loss)) => {
                format!("loss_type = {} sorts the batch: there is no loss of a single pair to weigh", shown(&s.loss_type))
            }
            _ => format!("loss_type = {} takes no notice of it", shown(&s.loss_type)),
        };
        keys.push((key, why));
    }
    if !s.sync_ref_model {
        for key in ["ref_model_mixup_alpha", "ref_model_sync_steps"] {
            keys.push((key, "`sync_ref_model` isn't true".to_owned()));
        }
    }
    if s.f_divergence_type != FDivergence::AlphaDivergence {
        keys.push(("f_alpha_divergence_coef", "f_divergence_type isn't \"alpha_divergence\"".to_owned()));
    }
    keys
}

fn shown(losses: &[LossType]) -> String {
    let names: Vec<String> = losses.iter().map(|loss| format!("\"{}\"", loss.name())).collect();
    if let [only] = names.as_slice() { only.clone() } else { format!("[{}]", names.join(", ")) }
}

/// Refuses what can't go together. Errors point to the key if `table` has it, else to the table.
pub(super) fn agrees(settings: &TrainSettings, table: &Table<'_>) -> Result<()> {
    let s = &settings.objective;
    let conflict = |key: &str, message: String, help: &str| Err(table.at_key(key, message).help(help));
    for (index, loss) in s.loss_type.iter().enumerate() {
        let name = loss.name();
        if s.loss_type[..index].contains(loss) {
            return conflict("loss_type", format!("`loss_type` names \"{name}\" twice"), "give it once, with a larger weight");
        }
        if loss.is_unpaired() && s.loss_type.len() > 1 {
            let message = format!("\"{name}\" learns from single completions and can't be combined with another loss");
            return conflict("loss_type", message, "give it alone");
        }
        if let Err((why, help)) = known(*loss, s.dialect) {
            return conflict("dialect", format!("dialect = \"{}\" has no \"{name}\": {why}", s.dialect.name()), help);
        }
    }
    let strangers = |fits: fn(LossType) -> bool| {
        let names: Vec<LossType> = s.loss_type.iter().copied().filter(|&loss| !fits(loss)).collect();
        (!names.is_empty()).then(|| shown(&names))
    };
    if s.f_divergence_type != FDivergence::ReverseKl {
        if let Some(names) = strangers(|loss| on_difference(loss) || loss == LossType::Sft) {
            let message =
                format!("`f_divergence_type` doesn't go with {names}: only the difference of two scores is known for it");
            return conflict("f_divergence_type", message, "use reverse_kl, the default");
        }
        if s.dpop_lambda > 0.0 || s.rdpo_alpha > 0.0 {
            let message = "`f_divergence_type` doesn't go with rdpo_alpha or dpop_lambda: both are defined on log-ratios";
            return conflict("f_divergence_type", message.to_owned(), "use reverse_kl, the default");
        }
    }
    if s.use_weighting
        && let Some(names) = strangers(|loss| takes(loss, "use_weighting", Dialect::DpoEval))
    {
        let message = format!("`use_weighting` doesn't go with {names}: it weighs the losses of pairs against a reference");
        return conflict("use_weighting", message, "leave one of the two out");
    }
    if s.ld_alpha.is_some()
        && let Some(names) = strangers(|loss| on_ratios(loss) || loss == LossType::Sft)
    {
        let message = format!("`ld_alpha` doesn't go with {names}: it is defined on log-ratios of pairs");
        return conflict("ld_alpha", message, "leave one of the two out");
    }
    if s.loss_type.contains(&LossType::ExoPair) && s.label_smoothing == 0.0 {
        let message = "\"exo_pair\" needs `label_smoothing`: with 0 its loss is infinite".to_owned();
        return conflict("loss_type", message, "its paper uses label_smoothing = 1e-3");
    }
    if s.sync_ref_model && s.precompute_ref_log_probs {
        let message = "`sync_ref_model` moves the reference while training runs, so what it says can't be worked out before";
        return conflict("sync_ref_model", message.to_owned(), "set precompute_ref_log_probs = false");
    }
    if s.sync_ref_model && settings.lora.is_some() {
        let message = "`sync_ref_model` doesn't go with low-rank adapters: the reference is the frozen base, which doesn't move";
        return conflict("sync_ref_model", message.to_owned(), "leave it out, or train all weights");
    }
    if s.dialect == Dialect::LlamaFactory
        && s.loss_type.contains(&LossType::BcoPair)
        && !s.loss_type.iter().any(|loss| matches!(loss, LossType::Sigmoid | LossType::Hinge))
    {
        let message = "dialect = \"llama-factory\" has \"bco_pair\" beside \"sigmoid\" or \"hinge\" only: `pref_bco_weight` adds it to another loss";
        let help = "a pref_bco_weight of γ is loss_weights = [1/(1 + γ), γ/(1 + γ)]";
        return conflict("loss_type", message.to_owned(), help);
    }
    dialect_has_options(s, table)?;
    kto(settings, table)
}

/// Whether a dialect has a loss, else why not and what to do.
fn known(loss: LossType, dialect: Dialect) -> std::result::Result<(), (&'static str, &'static str)> {
    use LossType::{BcoPair, Hinge, Ipo, Kto, Orpo, Ppo, Rloo, Sft, Sigmoid, Simpo, Unlikelihood};
    let ours = "leave `dialect` out";
    match (dialect, loss) {
        (Dialect::DpoEval, _) => Ok(()),
        (_, Ppo | Rloo) => Err(("dialects are of losses over data", ours)),
        (Dialect::Trl, Unlikelihood) => Err(("TRL doesn't implement it", ours)),
        (Dialect::Trl, _) => Ok(()),
        (Dialect::Original | Dialect::Openrlhf, Sigmoid | Ipo | Sft) => Ok(()),
        (Dialect::Original, _) => Err(("the DPO paper's code has \"sigmoid\", \"ipo\" and \"sft\"", ours)),
        (Dialect::Openrlhf, _) => Err(("OpenRLHF has \"sigmoid\", \"ipo\" and \"sft\"", ours)),
        (Dialect::LlamaFactory, Sigmoid | Hinge | Ipo | Kto | Orpo | Sft | Simpo | BcoPair) => Ok(()),
        (Dialect::LlamaFactory, _) => Err(("LLaMA-Factory doesn't implement it", ours)),
    }
}

fn dialect_has_options(s: &ObjectiveSettings, table: &Table<'_>) -> Result<()> {
    let trl = s.dialect == Dialect::Trl;
    let options = [
        ("ld_alpha", s.ld_alpha.is_some(), trl || s.dialect == Dialect::LlamaFactory),
        ("use_weighting", s.use_weighting, trl),
        ("f_divergence_type", s.f_divergence_type != FDivergence::ReverseKl, trl),
        ("rdpo_alpha", s.rdpo_alpha > 0.0, false),
        ("dpop_lambda", s.dpop_lambda > 0.0, false),
        ("kl_coef", s.kl_coef > 0.0, false),
        ("sync_ref_model", s.sync_ref_model, trl),
        ("bco_shift", s.bco_shift != crate::suite::settings::BcoShift::None, false),
    ];
    match options.into_iter().find(|(_, used, has)| s.dialect != Dialect::DpoEval && *used && !has) {
        Some((key, ..)) => Err(table
            .at_key(key, format!("dialect = \"{}\" has no `{key}`", s.dialect.name()))
            .help(format!("leave out `{key}` or `dialect`"))),
        None => Ok(()),
    }
}

/// KTO measures the KL on completions of other prompts of the same batch.
fn kto(settings: &TrainSettings, table: &Table<'_>) -> Result<()> {
    let s = &settings.objective;
    if !s.loss_type.contains(&LossType::Kto) {
        return Ok(());
    }
    let (micro, name) = (settings.per_device_train_batch_size, "per_device_train_batch_size");
    let (batch, named) = match s.dialect {
        Dialect::DpoEval => (micro * settings.gradient_accumulation_steps, "an optimizer step"),
        _ => (micro, "a batch"),
    };
    if batch < 2 {
        let message = format!("\"kto\" needs two examples {named} or more: with one, its KL would be that example's own reward");
        return Err(table.at_key(name, message).help(format!("raise {name}")));
    }
    if s.dialect == Dialect::Trl && settings.sampling != Sampling::Sequential {
        let message =
            "TRL's \"kto\" takes mismatched completions from neighbours in the file, so examples must come in order".to_owned();
        return Err(table.at_key("dialect", message).help("set sampling = \"sequential\" in [dataset], or leave `dialect` out"));
    }
    Ok(())
}
