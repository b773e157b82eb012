//! What distinguishes a variant, for people.

use crate::generate::REFERENCE;
use crate::suite::settings::{
    AdapterSource, BestOfSettings, DecodedSettings, Dialect, LossType, PolicySource, TrainSettings, Variant,
};

pub(super) fn label(variant: &Variant) -> String {
    match &variant.policy {
        PolicySource::Train(settings) => trained(settings),
        PolicySource::Checkpoint { beta, .. } => format!("trained elsewhere, β = {beta}"),
        PolicySource::Decoded(settings) => decoded(settings),
        PolicySource::BestOfN(settings) => best_of(settings),
    }
}

/// `best of 1 to 128 by reward`.
fn best_of(settings: &BestOfSettings) -> String {
    let (first, most) = (settings.best_of_n.first().copied().unwrap_or_default(), settings.most());
    let from = if first == most { String::new() } else { format!("{first} to ") };
    format!("best of {from}{most} by {}", settings.reward_model)
}

/// `dpo-b0.1 at temperature 0.5`.
fn decoded(settings: &DecodedSettings) -> String {
    let of = settings.of.as_deref().unwrap_or(REFERENCE);
    if settings.is_greedy() {
        return format!("{of}, greedy");
    }
    let mut label = format!("{of} at temperature {}", settings.temperature);
    if settings.top_p < 1.0 {
        label += &format!(", top_p {}", settings.top_p);
    }
    settings.top_k.iter().for_each(|k| label += &format!(", top_k {k}"));
    label
}

/// `DPO, β = 0.1`, with the dialect where it isn't ours.
fn trained(settings: &TrainSettings) -> String {
    let o = &settings.objective;
    let weight = |weight: f64| if weight == 1.0 { String::new() } else { format!("{weight} · ") };
    let term = |(loss, &w): (&LossType, &f64)| format!("{}{}", weight(w), title(*loss, o.label_smoothing));
    let terms: Vec<String> = o.loss_type.iter().zip(&o.loss_weights).map(term).collect();
    let mut parts = vec![terms.join(" + ")];
    if o.loss_type.iter().any(|loss| !matches!(loss, LossType::Sft | LossType::Unlikelihood)) {
        parts.push(format!("β = {}", o.beta));
    }
    if o.label_smoothing > 0.0 {
        parts.push(format!("ε = {}", o.label_smoothing));
    }
    if o.dialect != Dialect::DpoEval {
        parts.push(format!("as {} defines it", o.dialect.name()));
    }
    if let Some(online) = &settings.online {
        parts.push(format!("rewarded by {}", online.reward_model));
        parts.extend(online.target_kl.map(|kl| format!("KL aimed at {kl}")));
    }
    match &settings.lora {
        None => {}
        Some(AdapterSource::Fresh(lora)) => parts.push(format!("LoRA r = {}", lora.r)),
        Some(AdapterSource::Folder { .. }) => parts.push("LoRA trained on".to_owned()),
    }
    if let Some(rounds) = &settings.rounds {
        parts.push(format!("{} rounds labelled by {}", rounds.rounds, rounds.judge));
    }
    parts.join(", ")
}

/// The names of the best known; the others go by their names in suite files.
fn title(loss: LossType, smoothing: f64) -> String {
    match loss {
        LossType::Sigmoid if smoothing > 0.0 => "conservative DPO".to_owned(),
        LossType::Sigmoid => "DPO".to_owned(),
        LossType::Simpo => "SimPO".to_owned(),
        LossType::Sft | LossType::Ipo | LossType::Kto | LossType::Orpo | LossType::Cpo | LossType::Ppo | LossType::Rloo => {
            loss.name().to_uppercase()
        }
        _ => loss.name(),
    }
}
