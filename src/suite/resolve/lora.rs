//! The keys of low-rank adapters: which of them need which.

use crate::error::Result;
use crate::suite::defaults;
use crate::suite::document::{Document, Table};
use crate::suite::rules;
use crate::suite::settings::{AdapterSource, LoraSettings, Numerics, TrainSettings, Variant};
use crate::suite::spec::TrainSpec;

/// All of them.
pub(super) const KEYS: [&str; 6] = ["lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora", "lora_adapter"];

/// Overwrites `lora` with what `table` writes.
pub(super) fn overlay(lora: &mut Option<AdapterSource>, written: &TrainSpec, table: &Table<'_>) -> Result<()> {
    if let Some(path) = &written.lora_adapter {
        let own = ["lora_r", "lora_alpha", "lora_target_modules", "use_rslora"];
        if let Some(key) = table.first_key(|key| own.contains(&key)) {
            let message = format!("`{key}` has no effect: it is part of the adapter that is trained on (`lora_adapter`)");
            return Err(table.at_key(key, message).help(format!("leave out `{key}` or `lora_adapter`")));
        }
        *lora = Some(AdapterSource::Folder { path: path.clone(), lora_dropout: 0.0 });
    }
    if let Some(written_r) = written.lora_r {
        let mut r = written_r;
        table.set(&mut r, "lora_r", written.lora_r, rules::AT_LEAST_ONE)?;
        *lora = Some(AdapterSource::Fresh(match lora.take() {
            Some(AdapterSource::Fresh(below)) => LoraSettings { r, ..below },
            _ => defaults::lora(r),
        }));
    }
    match lora {
        None => match table.first_key(|key| KEYS.contains(&key)) {
            Some(key) => {
                let message = format!("`{key}` has no effect in {}: without `lora_r` all weights are trained", table.title());
                Err(table.at_key(key, message).help(format!("add `lora_r` to {}, or leave `{key}` out", table.title())))
            }
            None => Ok(()),
        },
        Some(AdapterSource::Folder { lora_dropout, .. }) => {
            table.set(lora_dropout, "lora_dropout", written.lora_dropout, rules::BELOW_ONE)
        }
        Some(AdapterSource::Fresh(settings)) => fresh(settings, written, table),
    }
}

fn fresh(settings: &mut LoraSettings, written: &TrainSpec, table: &Table<'_>) -> Result<()> {
    table.set(&mut settings.lora_alpha, "lora_alpha", written.lora_alpha, rules::POSITIVE)?;
    table.set(&mut settings.lora_dropout, "lora_dropout", written.lora_dropout, rules::BELOW_ONE)?;
    table.set(&mut settings.use_rslora, "use_rslora", written.use_rslora, rules::any())?;
    if let Some(targets) = &written.lora_target_modules {
        if targets.0.is_empty() {
            return Err(table.at_value("lora_target_modules", "`lora_target_modules` is empty, so nothing would be trained"));
        }
        let mut layers: Vec<_> = targets.0.iter().flat_map(|target| target.layers()).copied().collect();
        layers.sort_unstable();
        layers.dedup();
        settings.target_modules = layers;
    }
    Ok(())
}

/// The keys that would change nothing.
pub(super) fn ineffective(lora: Option<&AdapterSource>) -> &'static [&'static str] {
    match lora {
        Some(AdapterSource::Folder { .. }) => &["lora_r", "lora_alpha", "lora_target_modules", "use_rslora"],
        None | Some(AdapterSource::Fresh(_)) => &[],
    }
}

/// Adapters, dropout and layers that are computed again are computed in the strict arithmetic only.
pub(super) fn fits_numerics(
    numerics: Numerics,
    sft: Option<&TrainSettings>,
    variants: &[Variant],
    document: &Document,
) -> Result<()> {
    let of_variants = variants.iter().filter_map(Variant::training);
    let mut trained = sft.into_iter().chain(of_variants).filter(|_| numerics == Numerics::Fast);
    let missing = trained.find_map(|settings| match settings {
        s if s.lora.is_some() => Some("low-rank adapters (`lora_r`, `lora_adapter`)"),
        s if s.online.as_ref().is_some_and(|online| online.ppo.is_some()) => Some("by \"ppo\": it has no value head"),
        s if s.resid_pdrop > 0.0 => Some("under dropout (`resid_pdrop`)"),
        s if s.gradient_checkpointing => Some("with `gradient_checkpointing`"),
        _ => None,
    });
    match missing {
        Some(what) => Err(document
            .table("")
            .at_value("numerics", format!("numerics = \"fast\" doesn't train {what}"))
            .help("leave `numerics` out: the strict arithmetic does")),
        None => Ok(()),
    }
}
